// The page: a picture is sent once; words, names and heat maps then ask for what the server kept of it.

import { NONE, chosen, decoded, paint } from "./view.js";

const VIEW = 640, SHARP = 1280; // pixels of the longest side of a mask, and of the picture under it
const $ = (id) => document.getElementById(id);
const state = { about: null, file: null, url: null, look: null, found: null, view: null, mask: null, named: false, asked: "",
  heats: new Map(), work: 0 };

// ---------------------------------------------------------------- asking

async function ask(what, fields) {
  const form = new FormData();
  for (const [name, value] of Object.entries(fields)) form.append(name, value);
  let answer;
  try {
    answer = await fetch(`/api/${what}`, { method: "POST", body: form });
  } catch {
    throw new Error("The server does not answer. Is it still running?");
  }
  if (answer.ok) return answer;
  const told = await answer.json().catch(() => ({ error: `The server answered ${answer.status}.` }));
  throw Object.assign(new Error(told.error), { status: answer.status });
}

// The same about the picture at hand; it is sent again when the server has let go of it.
async function askOfPicture(what, fields) {
  try {
    return await ask(what, { look: state.look, ...fields });
  } catch (problem) {
    if (problem.status !== 410 || !state.file) throw problem;
    const again = await (await ask("look", { image: state.file })).json();
    state.look = again.look;
    return ask(what, { look: state.look, ...fields });
  }
}

// One thing at a time: what a later one has overtaken is dropped.
async function doing(label, work) {
  const own = ++state.work;
  $("busy").textContent = label;
  $("busy").hidden = false;
  complain(null);
  try {
    await work(() => own === state.work);
  } catch (problem) {
    if (own === state.work) complain(problem.message);
  } finally {
    if (own === state.work) $("busy").hidden = true;
  }
}

function complain(sentence) {
  $("error").textContent = sentence ? sentence[0].toUpperCase() + sentence.slice(1) + (/[.!?]$/.test(sentence) ? "" : ".") : "";
  $("error").hidden = !sentence;
}

// ---------------------------------------------------------------- a picture

function take(file, words) {
  const limit = state.about?.limits.megabytes;
  if (limit && file.size > limit * 1e6) return complain(`This file has ${Math.round(file.size / 1e6)} MB; at most ${limit} are taken`);
  return doing("looking", async (current) => {
    const began = performance.now();
    const sent = ask("look", { image: file });
    const shown = createImageBitmap(file).catch(() => null); // what a browser cannot show, the server may still read
    const look = await (await sent).json();
    if (!current()) return;
    Object.assign(state, { file, look: look.look, found: null, view: null, mask: null });
    state.heats.clear();
    show(await shown, look);
    times({ ...look.seconds }, began);
    if (words !== undefined) $("words").value = words;
    $("status").textContent = `Picture of ${look.width} by ${look.height} pixels.`;
    if ($("words").value.trim()) await find();
    else if (words === undefined) $("words").focus({ preventScroll: true });
  });
}

function show(bitmap, look) {
  const canvas = $("image"), scale = SHARP / Math.max(look.width, look.height);
  canvas.width = Math.max(1, Math.round(look.width * scale));
  canvas.height = Math.max(1, Math.round(look.height * scale));
  if (bitmap) canvas.getContext("2d").drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  $("mask").width = canvas.width;
  $("mask").height = canvas.height;
  $("mask").setAttribute("aria-label", "no mask yet");
  $("frame").style.setProperty("--ratio", look.width / look.height);
  canvas.classList.remove("under");
  $("drop").hidden = true;
  $("view").hidden = false;
  $("result").hidden = true;
  $("heat").hidden = true;
}

function another() {
  state.work++;
  Object.assign(state, { file: null, look: null, found: null, view: null, mask: null });
  for (const id of ["view", "result", "busy"]) $(id).hidden = true;
  $("drop").hidden = false;
  complain(null);
  $("examples").querySelector("button")?.focus();
}

// ---------------------------------------------------------------- masks

function find() {
  if (!state.look) return complain("Choose a picture first, or one of the examples");
  if (!$("words").value.trim()) {
    $("words").focus();
    return complain("Type what to look for, such as: tree, house, sky");
  }
  return doing("finding", async (current) => {
    const began = performance.now();
    const asked = $("words").value;
    const found = await (await askOfPicture("segment", { classes: asked, view: VIEW })).json();
    const view = await decoded(found.view);
    if (!current()) return;
    state.asked = asked;
    tell(found, view, false, began);
  });
}

function name() {
  if (!state.look) return complain("Choose a picture first, or one of the examples");
  return doing("naming", async (current) => {
    const began = performance.now();
    const found = await (await askOfPicture("name", { view: VIEW })).json();
    const view = await decoded(found.view);
    if (!current()) return;
    const seen = [...found.classes].sort((a, b) => b.share - a.share);
    $("words").value = seen.map((one) => one.name).join(", ");
    tell(found, view, true, began);
  });
}

function tell(found, view, named, began) {
  Object.assign(state, { found, view, named });
  $("result").hidden = false;
  $("heading").textContent = named ? "What is in it" : "Found";
  $("threshold").disabled = named; // names are whole regions
  draw();
  times(found.seconds, began);
}

// All that a slider changes; nothing is asked for.
function draw() {
  if (!state.view) return;
  const { found, view } = state, threshold = state.named ? 0 : $("threshold").value / 100;
  const opacity = $("opacity").value / 100, { mask, shares } = chosen(view, threshold, found.classes.length);
  state.mask = mask;
  paint($("mask"), view, mask, found.classes.map((one) => one.colour), opacity);
  $("image").classList.add("under");
  $("image").style.setProperty("--grey", Math.min(1, 1.6 * opacity));
  legend(shares);
  const seen = found.classes.map((one, k) => [one.name, shares[k]]).filter(([, share]) => share > 0);
  const words = seen.sort((a, b) => b[1] - a[1]).map(([word, share]) => `${word} ${percent(share)}`).join(", ") || "nothing";
  $("mask").setAttribute("aria-label", `mask: ${words}`);
  $("status").textContent = `Found: ${words}.`;
}

function legend(shares) {
  const rows = state.found.classes.map((one, k) => ({ ...one, share: shares[k], k })).sort((a, b) => b.share - a.share);
  const nothing = 1 - shares.reduce((sum, share) => sum + share, 0);
  const focused = document.activeElement?.dataset?.k;
  $("legend").replaceChildren(...rows.map(row), ...(nothing > 0.0005 ? [rest(nothing)] : []));
  if (focused !== undefined) $("legend").querySelector(`[data-k="${focused}"]`)?.focus();
}

function row({ name, colour, share, k, or }) {
  const button = element("button", { type: "button", "data-k": k, "aria-label": `${name}, ${percent(share)} of the picture` });
  button.style.setProperty("--colour", colour);
  button.style.setProperty("--share", `${100 * share}%`);
  if (!share) button.classList.add("none");
  const bar = element("i", { class: "bar" });
  button.append(element("i"), element("span", {}, name), element("b", {}, percent(share)), bar);
  const others = Object.keys(or ?? {}).slice(0, 3);
  if (others.length) button.append(element("small", {}, `or ${others.join(", ")}`));
  return listed(button);
}

function rest(share) {
  return listed(element("p", { class: "soft" }, `nothing of these: ${percent(share)}`));
}

const listed = (inside) => {
  const item = element("li");
  item.append(inside);
  return item;
};

// ---------------------------------------------------------------- heat

let wanted = null;

async function heat(word) {
  if (word !== null && word === wanted) return;
  wanted = word;
  $("heat").hidden = true;
  if (word === null) return;
  await new Promise((done) => setTimeout(done, 90)); // a pointer that only passes by asks for nothing
  const { look } = state;
  if (wanted !== word || !look) return;
  try {
    if (!state.heats.has(word)) {
      const blob = await (await askOfPicture("heat", { class: word, view: VIEW })).blob();
      if (state.look !== look) return;
      state.heats.set(word, URL.createObjectURL(blob));
    }
    if (wanted !== word) return;
    $("heat").src = state.heats.get(word);
    await $("heat").decode();
    $("heat").alt = `where the picture resembles ${word}`;
    $("heat").hidden = wanted !== word;
  } catch (problem) {
    complain(problem.message);
  }
}

function point(event) {
  const box = $("mask").getBoundingClientRect(), { view, mask, found } = state;
  const x = event.clientX - box.left, y = event.clientY - box.top;
  const inside = view && x >= 0 && y >= 0 && x < box.width && y < box.height;
  const at = inside ? Math.floor((y / box.height) * view.height) * view.width + Math.floor((x / box.width) * view.width) : 0;
  const own = inside ? mask[at] : NONE;
  for (const button of $("legend").querySelectorAll("button")) button.classList.toggle("here", own !== NONE && +button.dataset.k === own);
  $("tip").hidden = own === NONE;
  if (own === NONE) return;
  const frame = $("frame").getBoundingClientRect();
  $("tip").textContent = state.named ? found.classes[own].name : `${found.classes[own].name} ${percent(view.certainty[at] / 255)}`;
  $("tip").style.setProperty("--x", `${event.clientX - frame.left}px`);
  $("tip").style.setProperty("--y", `${event.clientY - frame.top}px`);
}

// ---------------------------------------------------------------- downloads and small things

function download(answer) {
  return doing("preparing", async () => {
    const what = state.named ? "name" : "segment";
    const fields = { answer, opacity: $("opacity").value / 100 };
    if (!state.named) Object.assign(fields, { threshold: $("threshold").value / 100, classes: state.asked });
    const blob = await (await askOfPicture(what, fields)).blob();
    const stem = (state.file?.name ?? "picture").replace(/\.[^.]*$/, "") || "picture";
    const link = element("a", { href: URL.createObjectURL(blob), download: `${stem}.${{ overlay: "segmented.png", mask: "mask.png", json: "json" }[answer]}` });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  });
}

function times(seconds, began) {
  const told = Object.entries(seconds).map(([step, value]) => [step, 1000 * value]);
  const line = [...told, ["all", performance.now() - began]].flatMap(([step, value], k) =>
    [document.createTextNode(`${k ? " · " : ""}${step} `), element("b", {}, milliseconds(value))]);
  $("times").replaceChildren(...line);
}

const milliseconds = (value) => (value < 1000 ? `${Math.max(1, Math.round(value))} ms` : `${(value / 1000).toFixed(1)} s`);
const percent = (share) => (share === 0 ? "0 %" : share < 0.001 ? "< 0.1 %" : share < 0.0995 ? `${(100 * share).toFixed(1)} %` : `${Math.round(100 * share)} %`);

function element(tag, attributes = {}, text) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

// ---------------------------------------------------------------- beginning

async function begin() {
  $("ask").addEventListener("submit", (event) => {
    event.preventDefault();
    find();
  });
  $("words").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      find();
    }
  });
  $("name").addEventListener("click", name);
  // of the list and not of its buttons, which a slider replaces under the pointer
  for (const event of ["mouseover", "focusin"]) {
    $("legend").addEventListener(event, ({ target }) => {
      const button = target.closest("button");
      heat(button ? state.found.classes[button.dataset.k].name : null);
    });
  }
  for (const event of ["mouseleave", "focusout"]) $("legend").addEventListener(event, () => heat(null));
  $("again").addEventListener("click", another);
  $("file").addEventListener("change", (event) => event.target.files[0] && take(event.target.files[0]));
  for (const id of ["opacity", "threshold"]) {
    $(id).addEventListener("input", () => {
      document.querySelector(`output[for=${id}]`).textContent = `${$(id).value} %`;
      draw();
    });
  }
  for (const button of document.querySelectorAll("[data-answer]")) button.addEventListener("click", () => download(button.dataset.answer));
  $("frame").addEventListener("pointermove", point);
  $("frame").addEventListener("pointerleave", () => {
    $("tip").hidden = true;
    for (const button of $("legend").querySelectorAll(".here")) button.classList.remove("here");
  });
  const files = (transfer) => [...(transfer?.files ?? [])];
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    document.body.classList.add("dragging");
  });
  document.addEventListener("dragleave", (event) => event.relatedTarget ?? document.body.classList.remove("dragging"));
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    document.body.classList.remove("dragging");
    const [file] = files(event.dataTransfer);
    if (file) take(file);
    else complain("Nothing to read was dropped; drop a picture from a folder");
  });
  document.addEventListener("paste", (event) => {
    const file = files(event.clipboardData).find((one) => one.type.startsWith("image/"));
    if (file) {
      event.preventDefault();
      take(file);
    }
  });
  document.addEventListener("keydown", (event) => event.key === "Escape" && heat(null));
  const answer = await fetch("/api/about").catch(() => null);
  if (!answer?.ok) return complain("The server does not answer. Is it still running?");
  state.about = await answer.json();
  $("run").textContent = state.about.run;
  $("name").hidden = !state.about.names;
  $("examples").replaceChildren(...state.about.examples.map(example));
  document.documentElement.dataset.ready = "";
}

function example({ src, alt, classes }) {
  const button = element("button", { type: "button", "aria-label": `Example: ${alt}` });
  button.append(element("img", { src, alt: "" }));
  button.addEventListener("click", async () => {
    const blob = await (await fetch(src)).blob();
    take(new File([blob], src.split("/").pop(), { type: blob.type }), classes);
  });
  return listed(button);
}

begin();
