"""A map of concepts and patches: what resembles what, in two dimensions.

    p_ij ~ exp( <x_i, x_j> / t_i )      t_i such that a point has about NEIGHBOURS neighbours
    q_ij ~ 1 / ( 1 + |y_i - y_j|^2 )    places y that bring q near p (t-SNE), from the two main directions on

Distances between far points mean nothing on it; who is beside whom does.

Sizes: n points, K classes, D channels.
"""

import math
from html import escape

import numpy as np

from fastzss.masks.colours import css, palette

NEIGHBOURS, STEPS, RATE, HASTE = 12, 400, 100.0, 100
SIDE = 620, 470  # width and height, in units of its own


def layout(vectors):
    """[n, 2] places of unit vectors [n, D]; always the same."""
    x = np.asarray(vectors, np.float64)
    p = affinities(x @ x.T)
    centred = x - x.mean(0)
    y = centred @ np.linalg.svd(centred, full_matrices=False)[2][:2].T
    y *= 1e-2 / max(y.std(), 1e-12)
    speed = np.zeros_like(y)
    for step in range(STEPS):
        pull = p * (4 if step < HASTE else 1)
        far = (y**2).sum(1)
        near = 1 / (1 + np.maximum(far[:, None] + far - 2 * y @ y.T, 0))
        np.fill_diagonal(near, 0)
        force = (pull - near / near.sum()) * near
        speed = (0.5 if step < HASTE else 0.8) * speed - RATE * 4 * (force.sum(1)[:, None] * y - force @ y)
        y = y + speed
    return y - y.mean(0)


def affinities(similarity):
    """[n, n], symmetric, of sum 1: how much of a neighbour each point is of each."""
    n = len(similarity)
    wanted, p = math.log(min(NEIGHBOURS, (n - 1) / 2)), np.zeros((n, n))
    for i in range(n):
        low, high, own = 1e-4, 1e4, np.delete(similarity[i], i)
        for _ in range(40):
            sharp = math.sqrt(low * high)
            weight = np.exp(sharp * (own - own.max()))
            weight /= weight.sum()
            if -(weight * np.log(weight + 1e-300)).sum() > wanted:
                low = sharp
            else:
                high = sharp
        p[i, np.arange(n) != i] = weight
    return (p + p.T) / (2 * n)


def apart(names, rings):
    """The places of words, each above its ring or as near to it as no other word is."""
    shifts = [(dx, dy) for dx in range(-150, 151, 15) for dy in range(-128, 125, 12)]
    shifts.sort(key=lambda shift: math.hypot(shift[0], 2 * (shift[1] + 8)))
    taken = []
    for name, (x, y) in zip(names, rings, strict=True):
        half = 3.4 * len(name) + 3
        for dx, dy in shifts:
            tx, ty = round(x + dx, 1), round(y + dy, 1)
            inside = half < tx < SIDE[0] - half and 12 < ty < SIDE[1]
            if inside and all(abs(tx - u) > half + own or abs(ty - v) > 12 for u, v, own in taken):
                break
        else:
            tx, ty = x, y - 8
        taken.append((tx, ty, half))
    return [place[:2] for place in taken]


def map_svg(found):
    """SVG of {"names": [K], "concepts": [[x, y] of each], "patches": [[x, y, class], ...]}."""
    names, (width, height) = found["names"], SIDE
    every = np.array([*found["concepts"], *(patch[:2] for patch in found["patches"])], float)
    low, span = every.min(0), np.maximum(np.ptp(every, 0), 1e-9)
    margin = np.array([46, 18])
    colours = [css(colour) for colour in palette(names)]

    def at(place):
        x, y = (np.asarray(place, float) - low) / span * (np.array(SIDE) - 2 * margin) + margin
        return round(float(x), 1), round(float(y), 1)

    title = "Patches by what they are of, and the words that name them"
    svg = [f'<svg class="map" viewBox="0 0 {width} {height}" role="img" aria-label="{title}" fill="currentColor">']
    for x, y, k in found["patches"]:
        cx, cy = at((x, y))
        svg.append(f'<circle cx="{cx}" cy="{cy}" r="3.2" fill="{colours[int(k)]}" opacity="0.75"/>')
    rings = [at(place) for place in found["concepts"]]
    for (x, y), colour in zip(rings, colours, strict=True):
        svg.append(f'<circle cx="{x}" cy="{y}" r="5" fill="{colour}" stroke="currentColor" stroke-width="1.5"/>')
    for name, (x, y), (tx, ty) in zip(names, rings, apart(names, rings), strict=True):
        if (tx, ty) != (x, y - 8):
            svg.append(f'<path d="M{x} {y}L{tx} {ty - 4}" stroke="currentColor" opacity="0.35"/>')
        svg.append(f'<text x="{tx}" y="{ty}" text-anchor="middle" font-size="11" class="word">{escape(name)}</text>')
    return "\n".join(svg) + "\n</svg>\n"
