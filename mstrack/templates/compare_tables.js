// Ranking, and the matrix of all pairs.
const sorting = { key: null, descending: true };
const lessIsBetter = new Set(["FR"]);

function heading(key, text, options = {}) {
  const sorted = sorting.key === key ? (sorting.descending ? "descending" : "ascending") : "none";
  const press = () => {
    const first = key !== "name" && !lessIsBetter.has(key);
    sorting.descending = sorting.key === key ? !sorting.descending : first;
    sorting.key = key;
    drawRanking();
    paint();
    find("ranking").querySelector(`[data-sort="${key}"]`).focus();
  };
  return make(
    "th",
    { scope: "col", class: key === "name" ? null : "number", "aria-sort": sorted, ...options },
    make("button", { type: "button", "data-sort": key, onclick: press }, text),
  );
}
function inOrder(rows, valueOfRow, nameOfRow) {
  const key = sorting.key ?? state.measure;
  const sign = sorting.descending ? -1 : 1;
  return [...rows].sort((a, b) => {
    if (key === "name") return sign * nameOfRow(a).localeCompare(nameOfRow(b), "en", { numeric: true });
    const [x, y] = [valueOfRow(a, key) ?? NaN, valueOfRow(b, key) ?? NaN];
    if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y);
    return sign * (x - y);
  });
}
function scaleOfWhiskers(part) {
  const ends = part.intervals[state.measure].flatMap(([low, high], i) => [low, high, part.percent[state.measure][i]]);
  const printed = data.published.filter((row) => row.main).map((row) => row.percent[state.measure]);
  const known = [...ends, ...(state.part === 0 ? printed : [])].filter((v) => typeof v === "number");
  const [low, high] = known.length ? [Math.min(...known), Math.max(...known)] : [0, 1];
  const room = Math.max(0.04 * (high - low), 0.5);
  return (v) => (8 + (164 * (v - low + room)) / (high - low + 2 * room)).toFixed(1);
}
function whisker(at, value, low, high, colour) {
  const mark =
    colour === null
      ? draw("path", { class: "diamond", d: `M${at(value)} 3l5 5-5 5-5-5z` })
      : draw("circle", { cx: at(value), cy: 8, r: 4.2 });
  const span =
    low === null ? null : draw("path", { class: "span", d: `M${at(low)} 8H${at(high)}M${at(low)} 4.5v7M${at(high)} 4.5v7` });
  return draw(
    "svg",
    { class: `whisker ${colour ?? ""}`, viewBox: "0 0 180 16", "aria-hidden": "true" },
    draw("path", { class: "grid", d: "M0 8H180" }),
    span,
    mark,
  );
}
function bestOf(key, part) {
  const known = part.percent[key].filter((v) => v !== null).map((v) => Number(v.toFixed(1)));
  return lessIsBetter.has(key) ? Math.min(...known) : Math.max(...known);
}
function drawRanking() {
  const part = currentPart();
  const columns = data.measures.filter(({ key }) => key in part.percent);
  const measured = columns.map(({ key }) => key);
  const at = scaleOfWhiskers(part);
  const leader = ranked()[0].index;
  const partial = part.counts.some((n) => n !== part.sequences);
  const best = Object.fromEntries(measured.map((key) => [key, bestOf(key, part)]));
  const cell = (tracker, key) => {
    const value = part.percent[key][tracker];
    const [low, high] = part.intervals[key][tracker];
    const isBest = trackers.length > 1 && value !== null && Number(value.toFixed(1)) === best[key];
    return make(
      "td",
      { class: `number${isBest ? " best" : ""}${key === state.measure ? " chosen" : ""}` },
      number(value),
      low === null ? null : make("small", {}, `${number(low)}–${number(high)}`),
    );
  };
  const row = (t) => {
    const d = t.index === leader || trackers.length < 2 ? null : difference(t.index, leader, part);
    const compared =
      trackers.length < 2
        ? null
        : d === null
          ? make("td", { class: "number muted" }, "the best")
          : make(
              "td",
              { class: "number" },
              make(
                "span",
                { class: "nowrap" },
                d.low === null ? signed(d.mean) : `${signed(d.mean)} [${signed(d.low)}, ${signed(d.high)}]`,
              ),
              make("small", { class: d.verdict.replaceAll(" ", "-") }, d.verdict),
            );
    const value = part.percent[state.measure][t.index];
    return make(
      "tr",
      { "data-row": t.index, ...follow(t.index) },
      make(
        "th",
        { scope: "row" },
        draw(
          "svg",
          { class: `dot ${t.colour}`, viewBox: "0 0 12 12", "aria-hidden": "true" },
          draw("rect", { width: 12, height: 12, rx: 3 }),
        ),
        t.name,
      ),
      make(
        "td",
        { class: "whisk" },
        value === null ? null : whisker(at, value, ...part.intervals[state.measure][t.index], t.colour),
      ),
      ...measured.map((key) => cell(t.index, key)),
      compared,
      partial
        ? make(
            "td",
            { class: `number nowrap${part.counts[t.index] < part.sequences ? " alert" : ""}` },
            `${part.counts[t.index]} of ${part.sequences}`,
          )
        : null,
    );
  };
  const measuredRows = inOrder(
    trackers,
    (t, key) => part.percent[key]?.[t.index],
    (t) => t.name,
  ).map(row);
  const table = make(
    "table",
    { class: partial ? "ranking partial" : "ranking" },
    make(
      "caption",
      {},
      `Percent, mean over ${part.attribute ? `the sequences with ${part.name}` : part.name} (${part.sequences}). Small figures: 95\u00a0% interval. Bold: best of the column. The headers sort.`,
    ),
    make(
      "thead",
      {},
      make(
        "tr",
        {},
        heading("name", "Tracker"),
        make(
          "th",
          { scope: "col", class: "whisk" },
          make("span", { class: "measure" }, labels[state.measure]),
          " with interval",
        ),
        ...columns.map(({ key, label }) => heading(key, label)),
        trackers.length < 2 ? null : make("th", { scope: "col", class: "number wide" }, "Against the best"),
        partial ? make("th", { scope: "col", class: "number" }, "Sequences") : null,
      ),
    ),
    make("tbody", {}, ...measuredRows),
    ...(state.part === 0 || !parts[state.part].attribute ? drawPublished(at, measured, partial) : []),
  );
  find("ranking").replaceChildren(table);
  find("findings").textContent = describeLeader(part, leader);
}
const folded = new Set(["ablation"]);
function drawPublished(at, measured, partial) {
  const columns = measured.length + 2 + (trackers.length > 1 ? 1 : 0) + (partial ? 1 : 0);
  return [
    ["main", true, "the tables of comparisons"],
    ["ablation", false, "the ablations"],
  ].flatMap(([kind, main, text]) => {
    const rows = data.published.filter((row) => row.main === main);
    if (!rows.length) return [];
    const press = () => {
      if (!folded.delete(kind)) folded.add(kind);
      drawRanking();
      paint();
      find("ranking").querySelector(`[data-fold="${kind}"]`).focus();
    };
    const title = make(
      "tr",
      { class: "divider" },
      make(
        "th",
        { scope: "rowgroup", colspan: columns },
        make(
          "div",
          {},
          make(
            "button",
            { type: "button", "data-fold": kind, "aria-expanded": String(!folded.has(kind)), onclick: press },
            `Published, not measured here: ${text} (${counted(rows.length, "row")})`,
          ),
          make(
            "small",
            {},
            `As printed in “${data.paper}”; its results and scorer are not known here, so no interval and no difference.`,
          ),
        ),
      ),
    );
    const at0 = (row) =>
      typeof row.percent[state.measure] === "number" && main && state.part === 0
        ? whisker(at, row.percent[state.measure], null, null, null)
        : null;
    const body = inOrder(
      rows,
      (row, key) => row.percent[key],
      (row) => row.label,
    ).map((row) =>
      make(
        "tr",
        {},
        make("th", { scope: "row" }, row.label, make("small", {}, `Table ${row.table}`)),
        make("td", { class: "whisk" }, at0(row)),
        ...measured.map((key) => make("td", { class: "number" }, key in row.percent ? number(row.percent[key]) : "–")),
        trackers.length < 2 ? null : make("td", { class: "number" }, "published"),
        partial ? make("td") : null,
      ),
    );
    return [make("tbody", { class: "published" }, title, ...(folded.has(kind) ? [] : body))];
  });
}
function describeLeader(part, leader) {
  if (trackers.length < 2) return "Only one tracker, so nothing is compared.";
  const others = trackers.filter((t) => t.index !== leader).map((t) => ({ t, d: difference(t.index, leader, part) }));
  if (others.every(({ d }) => d.low === null)) return "Too few sequences for an interval, so the trackers are not compared.";
  const tied = others.filter(({ d }) => d.verdict !== "worse").map(({ t }) => t.name);
  const name = trackers[leader].name;
  const rest = tied.length ? `; within noise of it: ${tied.join(", ")}.` : ", and ahead of every other by more than the noise.";
  return `${name} has the highest ${labels[state.measure]}, ${number(part.percent[state.measure][leader])}${rest}`;
}
when(["part", "measure"], drawRanking);

function drawMatrix() {
  const order = ranked();
  const largest = Math.max(
    1,
    ...order.flatMap((a) => order.map((b) => (a === b ? 0 : Math.abs(difference(a.index, b.index).mean ?? 0)))),
  );
  const choose = (a, b) => {
    change({ pair: [a, b] });
    find("matrix").querySelector('[tabindex="0"]').focus();
  };
  const move = (event, i, j) => {
    const [di, dj] = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key] ?? [0, 0];
    if (!di && !dj) return;
    event.preventDefault();
    let [k, l] = [i + di, j + dj];
    if (k === l) [k, l] = [k + di, l + dj];
    if (order[k] && order[l]) choose(order[k].index, order[l].index);
  };
  const cell = (a, b, i, j) => {
    if (a === b) return make("td", { class: "self" });
    const d = difference(a.index, b.index);
    const chosen = state.pair[0] === a.index && state.pair[1] === b.index;
    const depth =
      d.verdict === "better" || d.verdict === "worse"
        ? `${(12 + 43 * Math.sqrt(Math.abs(d.mean) / largest)).toFixed(0)}%`
        : "0%";
    return make(
      "td",
      {},
      make(
        "button",
        {
          type: "button",
          class: `tile ${d.verdict.replaceAll(" ", "-")}`,
          "--depth": depth,
          tabindex: chosen ? "0" : "-1",
          "aria-pressed": String(chosen),
          "aria-label": `${a.name} minus ${b.name}: ${signed(d.mean)}, ${d.verdict}`,
          onclick: () => choose(a.index, b.index),
          onkeydown: (event) => move(event, i, j),
        },
        order.length > 10 && Math.abs(d.mean) >= 9.95 ? signed(d.mean, 0) : signed(d.mean),
      ),
    );
  };
  find("matrix").replaceChildren(
    make(
      "table",
      { class: `matrix${order.length > 10 ? " dense" : ""}` },
      make("caption", { class: "hidden" }, "Differences of all pairs of trackers"),
      make(
        "thead",
        {},
        make(
          "tr",
          {},
          make("td"),
          ...order.map((t) => make("th", { scope: "col", class: "turned" }, make("span", {}, t.name))),
        ),
      ),
      make(
        "tbody",
        {},
        ...order.map((a, i) => make("tr", {}, make("th", { scope: "row" }, a.name), ...order.map((b, j) => cell(a, b, i, j)))),
      ),
    ),
  );
}
if (trackers.length > 1) when(["part", "measure", "pair"], drawMatrix);
