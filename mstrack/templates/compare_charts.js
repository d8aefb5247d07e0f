// Curves with a movable threshold, and the scatter of two trackers.
const box = { left: 48, right: 408, top: 12, bottom: 254 };
const chartsShown = [
  { key: "SR", title: "Success", x: "Overlap threshold", ticks: [0, 0.2, 0.4, 0.6, 0.8, 1], digits: 2 },
  { key: "PR", title: "Precision", x: "Centre error threshold (pixels)", ticks: [0, 10, 20, 30, 40, 50], mark: 20, digits: 0 },
  {
    key: "NPR",
    title: "Normalised precision",
    x: "Error threshold (target sizes)",
    ticks: [0, 0.1, 0.2, 0.3, 0.4, 0.5],
    mark: 0.2,
    digits: 2,
  },
];
const upTo = (v) => box.bottom - (v / 100) * (box.bottom - box.top);

function drawCurves(chart) {
  const part = currentPart();
  const xs = data.thresholds[chart.key];
  const last = xs[xs.length - 1];
  const across = (x) => box.left + (x / last) * (box.right - box.left);
  const curve = (t) => part.curves[chart.key].subarray(t.index * xs.length, (t.index + 1) * xs.length);
  const line = (t) => {
    const points = [...curve(t)].map((y, i) => `${across(xs[i]).toFixed(1)} ${upTo(Math.min(y, 100)).toFixed(1)}`);
    return Number.isNaN(curve(t)[0])
      ? null
      : draw("path", { class: `line ${t.colour} ${t.dash}`, "data-tracker": t.index, d: `M${points.join("L")}` });
  };
  const order = ranked(chart.key, part);
  const numbers = new Map();
  const legend = make(
    "ol",
    { class: `legend${trackers.length > 8 ? " two" : ""}` },
    ...order.map((t) => {
      const value = make("b", {}, number(part.percent[chart.key][t.index]));
      numbers.set(t.index, value);
      return make(
        "li",
        { "data-tracker": t.index, title: t.name, onclick: () => toggle(t.index), ...follow(t.index) },
        swatch(t),
        make("span", {}, t.name),
        value,
      );
    }),
  );
  const caption = make("figcaption", {}, `${chart.title}: ${labels[chart.key]}`);
  const cursor = draw("path", { class: "cursor", d: "" });
  const dots = draw("g", {});
  const svg = draw(
    "svg",
    {
      class: "chart",
      viewBox: "0 0 420 300",
      role: "img",
      tabindex: "0",
      "aria-label": `${chart.title}. ${labels[chart.key]}: ${order.map((t) => `${t.name} ${number(part.percent[chart.key][t.index])}`).join(", ")}. Left and right arrows read the curves at a threshold.`,
    },
    ...[0, 20, 40, 60, 80, 100].flatMap((y) => [
      draw("path", { class: "grid", d: `M${box.left} ${upTo(y)}H${box.right}` }),
      draw("text", { x: 42, y: upTo(y), dy: "0.35em", "text-anchor": "end" }, String(y)),
    ]),
    ...chart.ticks.flatMap((x) => [
      draw("path", { class: "grid", d: `M${across(x)} ${box.bottom}v5` }),
      draw("text", { x: across(x), y: 273, "text-anchor": "middle" }, String(x)),
    ]),
    chart.mark ? draw("path", { class: "mark", d: `M${across(chart.mark)} ${box.top}V${box.bottom}` }) : null,
    draw("path", { class: "axis", d: `M${box.left} ${box.bottom}H${box.right}` }),
    draw("text", { class: "label", x: 228, y: 295, "text-anchor": "middle" }, chart.x),
    draw("text", { class: "label", transform: "translate(11 133) rotate(-90)", "text-anchor": "middle" }, "Frames (%)"),
    ...[...order].reverse().map(line),
    cursor,
    dots,
  );

  let at = null;
  const read = (i) => {
    at = i;
    caption.textContent =
      i === null ? `${chart.title}: ${labels[chart.key]}` : `${chart.title} at ${xs[i].toFixed(chart.digits)}`;
    cursor.setAttribute("d", i === null ? "" : `M${across(xs[i]).toFixed(1)} ${box.top}V${box.bottom}`);
    dots.replaceChildren(
      ...(i === null
        ? []
        : visible().map((t) =>
            draw("circle", {
              class: `point ${t.colour}`,
              "data-tracker": t.index,
              cx: across(xs[i]),
              cy: upTo(Math.min(curve(t)[i], 100)),
              r: 3,
            }),
          )),
    );
    for (const t of trackers)
      numbers.get(t.index).textContent = number(i === null ? part.percent[chart.key][t.index] : curve(t)[i]);
  };
  svg.addEventListener("pointermove", (event) => {
    const frame = svg.getBoundingClientRect();
    const [x, y] = [((event.clientX - frame.left) / frame.width) * 420, ((event.clientY - frame.top) / frame.height) * 300];
    const share = Math.max(0, Math.min(1, (x - box.left) / (box.right - box.left)));
    const i = Math.round(share * (xs.length - 1));
    read(i);
    const near = visible()
      .map((t) => [Math.abs(upTo(curve(t)[i]) - y), t.index])
      .sort((a, b) => a[0] - b[0])[0];
    focusOn(near && near[0] < 14 ? near[1] : null);
  });
  svg.addEventListener("pointerleave", () => {
    read(null);
    focusOn(null);
  });
  svg.addEventListener("blur", () => read(null));
  svg.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (event.key === "Escape") read(null);
    if (!step) return;
    event.preventDefault();
    const marked = xs.findIndex((x) => Math.abs(x - (chart.mark ?? last / 2)) < 1e-6);
    read(at === null ? Math.max(marked, 0) : Math.max(0, Math.min(xs.length - 1, at + step)));
  });
  return make("figure", {}, caption, svg, legend);
}
when(["part"], () => find("curves").replaceChildren(...chartsShown.map(drawCurves)));

// Two trackers, sequence by sequence.
function drawScatter() {
  const [a, b] = state.pair.map((i) => trackers[i]);
  const part = currentPart();
  const across = (v) => 48 + 3.6 * v;
  const up = (v) => 372 - 3.6 * v;
  const both = sequences.filter((s) => !Number.isNaN(valueOf(a.index, s.index)) && !Number.isNaN(valueOf(b.index, s.index)));
  const inside = both.filter((s) => part.has(s.index));
  const gap = (s) => valueOf(a.index, s.index) - valueOf(b.index, s.index);
  const d = difference(a.index, b.index, part);
  const says = (s) =>
    `${s.name}: ${a.name} ${number(valueOf(a.index, s.index))}, ${b.name} ${number(valueOf(b.index, s.index))}`;
  const point = (s) =>
    draw("circle", {
      class: `case ${Math.abs(gap(s)) <= data.tie ? "" : gap(s) > 0 ? a.colour : b.colour}${part.has(s.index) ? "" : " outside"}${s.index === state.sequence ? " current" : ""}`,
      cx: across(valueOf(b.index, s.index)),
      cy: up(valueOf(a.index, s.index)),
      r: 4,
      onpointerenter: (event) =>
        tell(event, s.name, `${a.name} ${number(valueOf(a.index, s.index))}`, `${b.name} ${number(valueOf(b.index, s.index))}`),
      onpointerleave: hush,
      onclick: () => openSequence(s.index, true),
    });
  const drawn = [...both.filter((s) => !part.has(s.index)), ...inside].sort(
    (s, t) => (s.index === state.sequence) - (t.index === state.sequence),
  );
  find("scatter").replaceChildren(
    draw(
      "svg",
      {
        class: "chart",
        viewBox: "0 0 420 416",
        role: "img",
        "aria-label": `${labels[state.measure]} of ${inside.length} sequences: ${a.name} better on ${d.wins}, ${b.name} better on ${d.losses}.`,
      },
      ...[0, 20, 40, 60, 80, 100].flatMap((v) => [
        draw("path", { class: "grid", d: `M48 ${up(v)}H408M${across(v)} 12V372` }),
        draw("text", { x: 42, y: up(v), dy: "0.35em", "text-anchor": "end" }, String(v)),
        draw("text", { x: across(v), y: 390, "text-anchor": "middle" }, String(v)),
      ]),
      draw("path", { class: "mark", d: "M48 372L408 12" }),
      draw("text", { class: "label", x: 228, y: 412, "text-anchor": "middle" }, `${brief(b.name)}, ${labels[state.measure]}`),
      draw(
        "text",
        { class: "label", transform: "translate(11 192) rotate(-90)", "text-anchor": "middle" },
        `${brief(a.name)}, ${labels[state.measure]}`,
      ),
      ...drawn.map(point),
    ),
  );
  const sure =
    d.low === null
      ? "too few sequences for an interval"
      : `95\u00a0% interval ${signed(d.low)} to ${signed(d.high)}: ${d.verdict}`;
  const pairs = (trackers.length * (trackers.length - 1)) / 2;
  const tested =
    d.p === null
      ? ""
      : ` Sign-flip test: ${small(d.p)}${pairs > 1 ? `; with Holm's correction for all ${pairs} pairs, ${small(d.adjusted)}` : ""}.`;
  find("verdict").replaceChildren(
    make("b", {}, a.name),
    ` against ${b.name}: ${signed(d.mean)} points of ${labels[state.measure]} (${sure}). Better on ${d.wins}, worse on ${d.losses}, equal on ${d.n - d.wins - d.losses} of ${counted(d.n, "sequence")}.${tested}`,
  );
  const sorted = [...inside].sort((s, t) => gap(t) - gap(s));
  const list = (name, cases) =>
    make(
      "div",
      {},
      make("h3", {}, `${name} ahead most`),
      make(
        "ol",
        { class: "cases" },
        ...cases.map((s) =>
          make(
            "li",
            {},
            make(
              "button",
              { type: "button", "aria-label": says(s), onclick: () => openSequence(s.index, true) },
              make("span", {}, s.name),
              make("b", {}, signed(gap(s))),
            ),
          ),
        ),
      ),
    );
  find("largest").replaceChildren(
    list(a.name, sorted.filter((s) => gap(s) > data.tie).slice(0, 5)),
    list(
      b.name,
      sorted
        .filter((s) => gap(s) < -data.tie)
        .slice(-5)
        .reverse(),
    ),
  );
}
const small = (p) => (p < 0.001 ? "p < 0.001" : `p = ${p.toFixed(3)}`);

if (trackers.length > 1) {
  const pick = (place, label) => {
    const select = make("select", { "aria-label": `${label} tracker` });
    fillSelect(
      select,
      trackers.map((t) => [t.index, t.name]),
      state.pair[place],
      (value) => {
        const pair = [...state.pair];
        if (pair[1 - place] === Number(value)) pair[1 - place] = pair[place];
        pair[place] = Number(value);
        change({ pair });
      },
    );
    when(["pair"], () => {
      select.value = String(state.pair[place]);
    });
    return select;
  };
  find("pair").append(pick(0, "First"), "against", pick(1, "Second"));
  when(["part", "measure", "pair", "sequence"], drawScatter);
}
