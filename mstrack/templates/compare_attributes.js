// Attributes: a radar like the paper's Fig. 5, and a heat map.
const shortName = (part) => (part.short.includes("_") || part.short.length > 6 ? part.name : part.short);
const shown = (part, t) => part.percent[state.measure][t.index];

function drawRadar() {
  const figure = find("radar");
  const usable = attributes.filter((part) => trackers.some((t) => shown(part, t) !== null));
  if (usable.length < 3) {
    figure.hidden = true;
    return;
  }
  const known = usable.flatMap((part) => trackers.map((t) => shown(part, t))).filter((v) => v !== null);
  const low = Math.max(0, Math.floor(Math.min(...known) / 10) * 10 - 10);
  const high = Math.min(100, Math.ceil(Math.max(...known) / 10) * 10);
  const [cx, cy, radius] = [250, 232, 160];
  const place = (i, v) => {
    const angle = (2 * Math.PI * i) / usable.length - Math.PI / 2;
    const r = (radius * (v - low)) / Math.max(high - low, 1);
    return [cx + r * Math.cos(angle), cy + r * Math.sin(angle)];
  };
  const ring = (v) =>
    `M${usable
      .map((_, i) =>
        place(i, v)
          .map((c) => c.toFixed(1))
          .join(" "),
      )
      .join("L")}Z`;
  const step = high - low > 50 ? 20 : 10;
  const rings = Array.from({ length: Math.floor((high - low) / step) }, (_, i) => high - step * i).reverse();
  const polygon = (t) => {
    const points = usable.map((part, i) => place(i, Math.max(low, shown(part, t) ?? low)).map((c) => c.toFixed(1)));
    return draw("path", {
      class: `line ${t.colour} ${t.dash}`,
      "data-tracker": t.index,
      d: `M${points.map((p) => p.join(" ")).join("L")}Z`,
    });
  };
  const label = (part, i) => {
    const [x, y] = place(i, high + (high - low) * 0.09);
    const anchor = Math.abs(x - cx) < 30 ? "middle" : x > cx ? "start" : "end";
    const says = (event) =>
      tell(
        event,
        `${partName(part)}: ${counted(part.sequences, "sequence")}`,
        ...ranked(state.measure, part)
          .filter((t) => !state.hidden.has(t.index))
          .slice(0, 5)
          .map((t) => `${t.name} ${number(shown(part, t))}`),
      );
    const lines = brief(shortName(part), 24).split(" ");
    const start = y - 8 * (lines.length - 1) + (Math.abs(x - cx) < 30 ? Math.sign(y - cy) * 8 * (lines.length - 1) : 0);
    return draw(
      "text",
      {
        class: `spoke${state.part === parts.indexOf(part) ? " current" : ""}`,
        "text-anchor": anchor,
        onpointerenter: says,
        onpointerleave: hush,
        onclick: () => change({ part: parts.indexOf(part) }),
      },
      ...lines.map((line, n) => draw("tspan", { x: x.toFixed(1), y: (start + 16 * n).toFixed(1), dy: "0.35em" }, line)),
    );
  };
  const best = ranked(state.measure, parts[0])[0];
  figure.replaceChildren(
    draw(
      "svg",
      {
        class: "chart radar",
        viewBox: "0 0 500 464",
        role: "img",
        "aria-label": `${labels[state.measure]} by attribute, from ${low} in the centre to ${high} at the rim. ${best.name}: ${usable.map((part) => `${part.name} ${number(shown(part, best))}`).join(", ")}. The table beside it has all numbers.`,
      },
      ...rings.map((v) => draw("path", { class: "grid", d: ring(v) })),
      ...usable.map((_, i) =>
        draw("path", {
          class: "grid",
          d: `M${cx} ${cy}L${place(i, high)
            .map((c) => c.toFixed(1))
            .join(" ")}`,
        }),
      ),
      ...[...ranked(state.measure, parts[0])].reverse().map(polygon),
      ...rings.map((v) => draw("text", { class: "rung", x: cx + 4, y: place(0, v)[1] + 11 }, String(v))),
      ...usable.map(label),
    ),
  );
}

function drawHeat() {
  const order = ranked(state.measure, parts[0]);
  const relative = find("shade").value === "relative";
  const everything = attributes.flatMap((part) => order.map((t) => shown(part, t))).filter((v) => v !== null);
  const [low, high] = [Math.min(...everything), Math.max(...everything)];
  const means = attributes.map((part) => {
    const row = order.map((t) => shown(part, t)).filter((v) => v !== null);
    return row.reduce((a, b) => a + b, 0) / Math.max(row.length, 1);
  });
  const largest = Math.max(
    1,
    ...attributes.flatMap((part, i) => order.map((t) => Math.abs((shown(part, t) ?? means[i]) - means[i]))),
  );
  const cell = (t, part, i) => {
    const value = shown(part, t);
    if (value === null) return make("td", { class: "muted" }, "–");
    const share = relative ? Math.abs(value - means[i]) / largest : (value - low) / Math.max(high - low, 1);
    const best = order.every((other) => Number((shown(part, other) ?? -1).toFixed(1)) <= Number(value.toFixed(1)));
    return make(
      "td",
      {
        class: `tile ${relative && value < means[i] ? "worse" : "better"}${best && trackers.length > 1 ? " best" : ""}`,
        "--depth": `${(55 * share).toFixed(0)}%`,
      },
      number(value),
    );
  };
  const press = (part) => change({ part: state.part === parts.indexOf(part) ? data.whole : parts.indexOf(part) });
  const head = (part) =>
    make(
      "th",
      { scope: "col", class: `turned${state.part === parts.indexOf(part) ? " current" : ""}` },
      make(
        "button",
        {
          type: "button",
          "data-part": parts.indexOf(part),
          "aria-pressed": String(state.part === parts.indexOf(part)),
          title: `${partName(part)}: ${counted(part.sequences, "sequence")}`,
          onclick: () => {
            press(part);
            find("heat")
              .querySelector(`[data-part="${parts.indexOf(part)}"]`)
              .focus();
          },
        },
        shortName(part),
        make("small", {}, ` ${part.sequences}`),
      ),
    );
  find("heat").replaceChildren(
    make(
      "table",
      { class: `matrix${attributes.length > 14 ? " dense" : ""}` },
      make("caption", { class: "hidden" }, `${labels[state.measure]} by attribute`),
      make("thead", {}, make("tr", {}, make("td"), ...attributes.map(head))),
      make(
        "tbody",
        {},
        ...order.map((t) =>
          make(
            "tr",
            { "data-tracker": t.index, ...follow(t.index) },
            make("th", { scope: "row" }, swatch(t), t.name),
            ...attributes.map((part, i) => cell(t, part, i)),
          ),
        ),
      ),
    ),
  );
}
if (attributes.length) {
  when(["part", "measure", "hidden"], drawRadar);
  when(["part", "measure"], drawHeat);
  find("shade").addEventListener("change", () => {
    drawHeat();
    paint();
  });
}
