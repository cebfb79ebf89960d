// A view, as the server sends it, and how it is painted: an RGB PNG, red the class (255: none), green its share.

export const NONE = 255;

export async function decoded(uri) {
  const bytes = Uint8Array.from(atob(uri.slice(uri.indexOf(",") + 1)), (letter) => letter.charCodeAt(0));
  const blob = new Blob([bytes], { type: "image/png" });
  const bitmap = await createImageBitmap(blob, { colorSpaceConversion: "none", premultiplyAlpha: "none" });
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  const { data } = context.getImageData(0, 0, bitmap.width, bitmap.height);
  const size = bitmap.width * bitmap.height;
  const index = new Uint8Array(size), certainty = new Uint8Array(size);
  for (let i = 0; i < size; i++) {
    index[i] = data[4 * i];
    certainty[i] = data[4 * i + 1];
  }
  return { width: bitmap.width, height: bitmap.height, index, certainty };
}

// The class of each place where its share reaches the threshold (0..1), and the share of the picture of each class.
export function chosen(view, threshold, count) {
  const least = Math.ceil(threshold * 255), size = view.index.length;
  const mask = new Uint8Array(size), pixels = new Array(count).fill(0);
  for (let i = 0; i < size; i++) {
    const own = view.certainty[i] >= least ? view.index[i] : NONE;
    mask[i] = own;
    if (own < count) pixels[own]++;
  }
  return { mask, shares: pixels.map((n) => n / size) };
}

export function paint(canvas, view, mask, colours, opacity) {
  const { width, height } = view;
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d");
  const picture = context.createImageData(width, height), data = picture.data;
  const rgb = colours.map((css) => [1, 3, 5].map((at) => parseInt(css.slice(at, at + 2), 16)));
  const alpha = Math.round(255 * opacity), edge = Math.min(255, alpha * 1.5);
  for (let y = 0, i = 0; y < height; y++) {
    for (let x = 0; x < width; x++, i++) {
      const own = mask[i];
      const border = (x + 1 < width && mask[i + 1] !== own) || (y + 1 < height && mask[i + width] !== own);
      if (own >= rgb.length && !border) continue;
      const [r, g, b] = border ? [20, 22, 26] : rgb[own];
      data[4 * i] = r;
      data[4 * i + 1] = g;
      data[4 * i + 2] = b;
      data[4 * i + 3] = border ? edge : alpha;
    }
  }
  context.putImageData(picture, 0, 0);
}
