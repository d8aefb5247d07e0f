// The list of sequences: search, order, choice.
const films = Object.fromEntries(
  Object.entries(data.films).map(([index, film]) => [
    index,
    { ...film, coordinates: new Int16Array(bytes(film.boxes).buffer) },
  ]),
);
const present = (list) => list.filter((v) => !Number.isNaN(v));
const mean = (list) => (list.length ? list.reduce((a, b) => a + b, 0) / list.length : NaN);
const scoresOn = (s, only = visible()) => present(only.map((t) => valueOf(t.index, s.index)));
const spreadOf = (s) => {
  const known = scoresOn(s);
  return known.length ? Math.max(...known) - Math.min(...known) : NaN;
};
const orders = {
  mean: ["worst first, mean of the shown", (s) => mean(scoresOn(s))],
  best: ["worst first, best of the shown", (s) => (scoresOn(s).length ? Math.max(...scoresOn(s)) : NaN)],
  ...Object.fromEntries(trackers.map((t) => [`t${t.index}`, [`worst first, ${t.name}`, (s) => valueOf(t.index, s.index)]])),
  ...(trackers.length > 1 ? { spread: ["where trackers differ most", (s) => -spreadOf(s)] } : {}),
  film: ["with frames or boxes first", (s) => (films[s.index] ? 0 : 1)],
  name: ["by name", null],
};
fillSelect(
  find("order"),
  Object.entries(orders).map(([key, [text]]) => [key, text]),
  "mean",
  drawList,
);
find("find").addEventListener("input", drawList);

function listed() {
  const wanted = find("find").value.trim().toLowerCase();
  const [, key] = orders[find("order").value];
  const some = sequences.filter((s) => currentPart().has(s.index) && s.name.toLowerCase().includes(wanted));
  if (key === null) return some.sort((a, b) => a.name.localeCompare(b.name, "en", { numeric: true }));
  const keys = new Map(some.map((s) => [s.index, key(s)]));
  const compare = (x, y) => (Number.isNaN(x) || Number.isNaN(y) ? Number.isNaN(x) - Number.isNaN(y) : x - y);
  return some.sort((a, b) => compare(keys.get(a.index), keys.get(b.index)) || a.index - b.index);
}
function drawList() {
  const rows = listed();
  const item = (s) => {
    const known = scoresOn(s);
    const [low, high] = known.length ? [Math.min(...known), Math.max(...known)] : [0, 0];
    return make(
      "li",
      { role: "option", id: `s${s.index}`, "data-sequence": s.index, tabindex: "-1", "aria-selected": "false" },
      make("span", { class: "name" }, s.name),
      films[s.index] ? make("span", { class: "tag" }, films[s.index].panels ? "frames" : "boxes") : null,
      make("span", { class: "range", "--low": `${low}%`, "--high": `${high}%`, "aria-hidden": "true" }),
      make("b", {}, number(mean(known))),
    );
  };
  find("list").replaceChildren(...rows.map(item));
  find("found").textContent =
    `${counted(rows.length, "sequence")}. Number: mean ${labels[state.measure]} of the shown trackers; bar: from the lowest to the highest.`;
  markChosen();
}
function markChosen(scroll = false) {
  const list = find("list");
  for (const item of list.children) {
    const chosen = Number(item.dataset.sequence) === state.sequence;
    item.setAttribute("aria-selected", String(chosen));
    item.tabIndex = chosen ? 0 : -1;
    if (chosen && scroll) list.scrollTop = Math.max(0, item.offsetTop - list.offsetTop - list.clientHeight / 2);
  }
  if (!list.querySelector('[tabindex="0"]') && list.firstChild) list.firstChild.tabIndex = 0;
}
find("list").addEventListener("click", (event) => {
  const item = event.target.closest("[data-sequence]");
  if (item) openSequence(Number(item.dataset.sequence));
});
find("list").addEventListener("keydown", (event) => {
  const items = [...find("list").children];
  const here = items.indexOf(document.activeElement);
  const next = {
    ArrowDown: here + 1,
    ArrowUp: here - 1,
    Home: 0,
    End: items.length - 1,
    PageDown: here + 8,
    PageUp: here - 8,
    Enter: here,
    " ": here,
  }[event.key];
  if (next === undefined) return;
  event.preventDefault();
  const item = items[Math.max(0, Math.min(items.length - 1, next))];
  if (!item) return;
  openSequence(Number(item.dataset.sequence));
  item.focus();
});
