// The page's data and state, and what all views share.
const data = JSON.parse(document.getElementById("data").textContent);
const trackers = data.trackers.map((tracker, index) => ({
  ...tracker,
  index,
  colour: `c${index % 8}`,
  dash: `d${(index + Math.floor(index / 8)) % 4}`,
}));
const sequences = data.sequences.map((sequence, index) => ({ ...sequence, index, points: data.points[index] }));
const state = { hidden: new Set(), focus: null, part: data.whole, measure: "SR", pair: [0, 1], sequence: 0, step: 0 };
const find = (id) => document.getElementById(id);

function bytes(text) {
  const raw = atob(text);
  return Uint8Array.from(raw, (letter) => letter.charCodeAt(0));
}
function percents(text) {
  return Float64Array.from(new Uint16Array(bytes(text).buffer), (v) => (v === 65535 ? NaN : (v + 0.5) / 100));
}
const values = Object.fromEntries(data.compared.map((key) => [key, percents(data.values[key])]));
const overlaps = bytes(data.overlaps);
let size = 0;
for (const sequence of sequences) {
  sequence.offset = size;
  size += (trackers.length + 1) * sequence.points;
}
const parts = data.parts.map((part) => {
  const bits = bytes(part.members);
  return {
    ...part,
    has: (i) => Boolean(bits[i >> 3] & (128 >> (i & 7))),
    curves: Object.fromEntries(data.compared.map((key) => [key, percents(part.curves[key])])),
  };
});
const attributes = parts.filter((part) => part.attribute);
const labels = Object.fromEntries(data.measures.map(({ key, label }) => [key, label]));

// Elements: texts only ever become text nodes, so that names cannot become markup.
function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name.startsWith("--")) element.style.setProperty(name, value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}
const make = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);
const draw = (tag, attributes = {}, ...children) =>
  fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);

const number = (value, digits = 1) =>
  value === null || Number.isNaN(value) ? "–" : value.toFixed(digits).replace("-", "\u2212");
const signed = (value, digits = 1) => (value === null ? "–" : (value >= 0 ? "+" : "") + number(value, digits));
const brief = (text, length = 36) => (text.length > length ? `${text.slice(0, length - 1)}…` : text);
const counted = (n, noun) => `${n} ${noun}${n === 1 ? "" : "s"}`;
const swatch = (t) =>
  draw(
    "svg",
    { class: `swatch ${t.colour} ${t.dash}`, viewBox: "0 0 26 8", "aria-hidden": "true" },
    draw("path", { class: "line", d: "M0 4H26" }),
  );
const valueOf = (tracker, sequence, measure = state.measure) => values[measure][tracker * sequences.length + sequence];
const overlapOf = (tracker, sequence, step) => {
  const byte = overlaps[sequence.offset + (tracker + 1) * sequence.points + step];
  return byte === 255 ? NaN : byte / 250;
};
const isThere = (sequence, step) => overlaps[sequence.offset + step] === 1;
const frameOf = (sequence, step) => Math.floor((step * (sequence.frames - 1)) / Math.max(sequence.points - 1, 1) + 0.5);
const currentPart = () => parts[state.part];
const visible = () => trackers.filter((t) => !state.hidden.has(t.index));
const ranked = (key = state.measure, part = currentPart()) =>
  [...trackers].sort((a, b) => (part.percent[key][b.index] ?? -1) - (part.percent[key][a.index] ?? -1) || a.index - b.index);

function difference(a, b, part = currentPart(), measure = state.measure) {
  const [low, high] = a < b ? [a, b] : [b, a];
  const row = part.pairs[measure][low * trackers.length - (low * (low + 1)) / 2 + high - low - 1];
  const [mean, from, to, wins, losses, n, p, adjusted] = row;
  const flip = (v) => (v === null ? null : -v);
  const found =
    a < b
      ? { mean, low: from, high: to, wins, losses }
      : { mean: flip(mean), low: flip(to), high: flip(from), wins: losses, losses: wins };
  const verdict =
    found.low === null ? "too few sequences" : found.low > 0 ? "better" : found.high < 0 ? "worse" : "within noise";
  return { ...found, n, p, adjusted, verdict };
}

// Views say which parts of the state they show; a change redraws those, then hides and fades what is to be hidden and faded.
const views = [];
const when = (keys, view) => views.push([keys, view]);
function change(update) {
  Object.assign(state, update);
  for (const [keys, view] of views) if (keys.some((key) => key in update)) view();
  paint();
}
function paint() {
  for (const part of document.querySelectorAll("[data-tracker]")) {
    const tracker = Number(part.dataset.tracker);
    part.classList.toggle("off", state.hidden.has(tracker));
    part.classList.toggle("faded", state.focus !== null && state.focus !== tracker && !state.hidden.has(state.focus));
  }
}
function focusOn(tracker) {
  if (state.focus === tracker) return;
  state.focus = tracker;
  paint();
}
function toggle(tracker) {
  const hidden = new Set(state.hidden);
  if (!hidden.delete(tracker)) hidden.add(tracker);
  change({ hidden });
}
const follow = (tracker) => ({
  onmouseenter: () => focusOn(tracker),
  onmouseleave: () => focusOn(null),
  onfocus: () => focusOn(tracker),
  onblur: () => focusOn(null),
});

// Toolbar.
for (const t of trackers) {
  find("chips").append(
    make(
      "button",
      {
        type: "button",
        class: `chip ${t.colour}`,
        "data-chip": t.index,
        "aria-pressed": "true",
        onclick: () => toggle(t.index),
        ...follow(t.index),
      },
      swatch(t),
      make("span", {}, t.name),
    ),
  );
}
// What is scrolled to shows below the toolbar, as high as it is now.
new ResizeObserver(() => {
  const covers = getComputedStyle(find("toolbar")).position === "sticky";
  document.documentElement.style.scrollPaddingTop = covers ? `${find("toolbar").offsetHeight + 16}px` : "";
}).observe(find("toolbar"));
when(["hidden"], () => {
  for (const chip of find("chips").children)
    chip.setAttribute("aria-pressed", String(!state.hidden.has(Number(chip.dataset.chip))));
});
for (const button of document.querySelectorAll("[data-show]")) {
  button.addEventListener("click", () => {
    const keep = { all: trackers.length, none: 0 }[button.dataset.show] ?? Number(button.dataset.show);
    change({
      hidden: new Set(
        ranked()
          .slice(keep)
          .map((t) => t.index),
      ),
    });
  });
}
function fillSelect(select, options, chosen, onchange) {
  select.replaceChildren(...options.map(([value, text]) => make("option", { value }, text)));
  select.value = String(chosen);
  select.addEventListener("change", () => onchange(select.value));
}
const partName = (part) =>
  part.attribute && part.short !== part.name && !part.short.includes("_") ? `${part.short}, ${part.name}` : part.name;
fillSelect(
  find("part"),
  parts.map((part, i) => [i, `${partName(part)} (${part.sequences})`]),
  state.part,
  (value) => change({ part: Number(value) }),
);
fillSelect(
  find("measure"),
  data.compared.map((key) => [key, labels[key]]),
  state.measure,
  (value) => change({ measure: value }),
);
when(["part"], () => {
  find("part").value = String(state.part);
  for (const place of document.querySelectorAll("small.part"))
    place.textContent = `${partName(currentPart())}, ${currentPart().sequences}`;
});
when(["measure"], () => {
  find("measure").value = state.measure;
  for (const place of document.querySelectorAll(".measure")) place.textContent = labels[state.measure];
});

// Theme: as the system has it, until the reader chooses; remembered where the browser allows that.
const themes = ["system", "light", "dark"];
function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  find("theme").textContent = { system: "Theme: system", light: "Theme: light", dark: "Theme: dark" }[theme];
  try {
    localStorage.setItem("mst-theme", theme);
  } catch {
    /* A page from a file may have no storage. */
  }
}
find("theme").addEventListener("click", () =>
  setTheme(themes[(themes.indexOf(document.documentElement.dataset.theme) + 1) % 3]),
);
let remembered = null;
try {
  remembered = localStorage.getItem("mst-theme");
} catch {
  /* As above. */
}
setTheme(themes.includes(remembered) ? remembered : "system");

// One small label that follows the pointer.
function tell(event, ...lines) {
  const tip = find("tip");
  tip.replaceChildren(...lines.map((line) => make("div", {}, line)));
  tip.hidden = false;
  const { width, height } = tip.getBoundingClientRect();
  tip.style.left = `${Math.max(4, Math.min(event.clientX + 14, document.documentElement.clientWidth - width - 4))}px`;
  tip.style.top = `${event.clientY + height + 22 > window.innerHeight ? event.clientY - height - 10 : event.clientY + 16}px`;
}
const hush = () => {
  find("tip").hidden = true;
};
