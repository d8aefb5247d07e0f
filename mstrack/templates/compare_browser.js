// The chosen sequence: a stage with frames and boxes, and the overlap over time, all at one moment.
// Moments that can be shown: those with a picture where the sequence has pictures, else all that are kept.
const stepsOf = (s) => films[s.index]?.steps ?? Array.from({ length: s.points }, (_, i) => i);
const chosenSequence = () => sequences[state.sequence];
function openSequence(index, scroll = false) {
  stop();
  const steps = stepsOf(sequences[index]);
  change({ sequence: index, step: steps[0] });
  markChosen(true);
  if (scroll)
    find("browser-title").scrollIntoView({
      behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth",
    });
}

function boxOf(film, row, step, points) {
  const start = 4 * (row * points + step);
  const quarters = film.coordinates.subarray(start, start + 4);
  return quarters[0] === -32768 ? null : [...quarters].map((v) => v / 4);
}
function extentOf(film, points) {
  const [ends, rows] = [[0, 0], film.coordinates.length / 4 / points];
  for (let row = 0; row < rows; row += 1) {
    for (let step = 0; step < points; step += 1) {
      const b = boxOf(film, row, step, points);
      if (b && row === 0) {
        ends[0] = Math.max(ends[0], b[0] + b[2]);
        ends[1] = Math.max(ends[1], b[1] + b[3]);
      }
    }
  }
  return [1.04 * ends[0] || 100, 1.04 * ends[1] || 100];
}
function drawStage() {
  const s = chosenSequence();
  const film = films[s.index];
  if (!film) {
    find("stage").replaceChildren(
      make(
        "p",
        { class: "fine empty" },
        "The boxes of this sequence are not in this page. ",
        make("code", {}, "mst compare … --show NAME"),
        " puts them there, with frames where the data set is at hand.",
      ),
    );
    return;
  }
  const [width, height] = film.panels ? [film.width, film.height] : extentOf(film, s.points);
  const rectangle = ([x, y, w, h]) => ({ x, y, width: w, height: h });
  const outline = (row, attributes) => {
    const b = boxOf(film, row, state.step, s.points);
    return b && draw("g", attributes, draw("rect", { class: "halo", ...rectangle(b) }), draw("rect", rectangle(b)));
  };
  const boxes = () => [
    outline(0, { class: "truth" }),
    ...[...ranked()]
      .reverse()
      .map((t) => outline(t.index + 1, { class: `box ${t.colour} ${t.dash}`, "data-tracker": t.index })),
  ];
  const position = film.panels ? film.steps.indexOf(state.step) : -1;
  const panel = (label, address) =>
    make(
      "figure",
      { class: `panel${film.panels ? "" : " bare"}` },
      draw(
        "svg",
        {
          viewBox: `0 0 ${width} ${height}`,
          role: "img",
          "aria-label": `${s.name}, frame ${frameOf(s, state.step)}, ${label}, with boxes`,
        },
        address ? draw("image", { href: address, width, height, preserveAspectRatio: "none" }) : null,
        ...boxes(),
      ),
      make("figcaption", {}, address === "" ? `${label}: no frame` : label),
    );
  const panels = film.panels
    ? film.panels.map((addresses, i) => panel(film.labels[i], addresses[position] ?? ""))
    : [panel("boxes, without frames", null)];
  const truth = draw(
    "svg",
    { class: "dot truth", viewBox: "0 0 22 14", "aria-hidden": "true" },
    draw("rect", { width: 22, height: 14, rx: 2 }),
    draw("rect", { x: 3.5, y: 2.5, width: 15, height: 9 }),
  );
  const legend = make("p", { class: "fine" }, truth, "Dashed, white: the ground truth. Each tracker has its colour and dash.");
  find("stage").replaceChildren(...panels, legend);
}

const time = { left: 40, right: 892, width: 900, top: 8, bottom: 150 };
function drawOverlap() {
  const s = chosenSequence();
  time.width = find("overlap").clientWidth < 560 ? 420 : 900;
  time.right = time.width - 8;
  const across = (step) => time.left + (step / Math.max(s.points - 1, 1)) * (time.right - time.left);
  const up = (v) => time.bottom - v * (time.bottom - time.top);
  const line = (t) => {
    let [path, pen] = ["", "M"];
    for (let step = 0; step < s.points; step += 1) {
      const v = overlapOf(t.index, s, step);
      if (Number.isNaN(v)) {
        pen = "M";
        continue;
      }
      path += `${pen}${across(step).toFixed(1)} ${up(v).toFixed(1)}`;
      pen = "L";
    }
    return path ? draw("path", { class: `line ${t.colour} ${t.dash}`, "data-tracker": t.index, d: path }) : null;
  };
  const gone = [];
  for (let step = 0, start = null; step <= s.points; step += 1) {
    const absent = step < s.points && !isThere(s, step);
    if (absent && start === null) start = step;
    if (!absent && start !== null) {
      gone.push(
        draw("rect", {
          class: "gone",
          x: across(Math.max(start - 0.5, 0)),
          y: time.top,
          width: Math.max(across(Math.min(step - 0.5, s.points - 1)) - across(Math.max(start - 0.5, 0)), 1.5),
          height: time.bottom - time.top,
        }),
      );
      start = null;
    }
  }
  const ticks = [0, 0.25, 0.5, 0.75, 1].map((share) => Math.round(share * (s.points - 1)));
  const svg = draw(
    "svg",
    {
      class: "chart time",
      viewBox: `0 0 ${time.width} 190`,
      role: "img",
      "aria-label": `Overlap of every tracker with the ground truth over ${s.frames} frames`,
    },
    ...gone,
    ...[0, 0.5, 1].flatMap((v) => [
      draw("path", { class: v === 0.5 ? "mark" : "grid", d: `M${time.left} ${up(v)}H${time.right}` }),
      draw("text", { x: time.left - 7, y: up(v), dy: "0.35em", "text-anchor": "end" }, String(v)),
    ]),
    ...[...new Set(ticks)].map((step) =>
      draw(
        "text",
        { x: across(step), y: 168, "text-anchor": step ? (step === s.points - 1 ? "end" : "middle") : "start" },
        String(frameOf(s, step)),
      ),
    ),
    draw("text", { class: "label", x: (time.left + time.right) / 2, y: 187, "text-anchor": "middle" }, "Frame"),
    ...[...ranked()].reverse().map(line),
    draw("path", { class: "cursor", id: "cursor" }),
  );
  let pressed = false;
  const seek = (event) => {
    const frame = svg.getBoundingClientRect();
    const share = (((event.clientX - frame.left) / frame.width) * time.width - time.left) / (time.right - time.left);
    const wanted = share * (s.points - 1);
    const steps = stepsOf(s);
    change({ step: steps.reduce((a, b) => (Math.abs(b - wanted) < Math.abs(a - wanted) ? b : a)) });
  };
  svg.addEventListener("pointerdown", (event) => {
    pressed = true;
    stop();
    seek(event);
  });
  svg.addEventListener("pointermove", (event) => {
    if (pressed && event.buttons) seek(event);
  });
  svg.addEventListener("pointerup", () => {
    pressed = false;
  });
  const every = s.points < s.frames ? `Of ${s.frames} frames, ${s.points} are kept. ` : "";
  find("overlap").replaceChildren(
    make("figcaption", {}, `Overlap over time. ${every}${gone.length ? "Shaded: no target. " : ""}`),
    svg,
  );
}
function drawMoment() {
  const s = chosenSequence();
  const steps = stepsOf(s);
  const scrub = find("scrub");
  scrub.max = String(steps.length - 1);
  scrub.value = String(steps.indexOf(state.step));
  const frame = frameOf(s, state.step);
  const absent = isThere(s, state.step) ? "" : ", no target";
  find("frame").textContent = `frame ${frame} of 0–${s.frames - 1}${absent}`;
  scrub.setAttribute("aria-valuetext", `frame ${frame}${absent}`);
  const x = (time.left + (state.step / Math.max(s.points - 1, 1)) * (time.right - time.left)).toFixed(1);
  find("cursor").setAttribute("d", `M${x} ${time.top - 6}V${time.bottom + 4}`);
  const order = [...trackers].sort(
    (a, b) => (overlapOf(b.index, s, state.step) || 0) - (overlapOf(a.index, s, state.step) || 0) || a.index - b.index,
  );
  const row = (t) =>
    make(
      "li",
      { "data-tracker": t.index, title: t.name, onclick: () => toggle(t.index), ...follow(t.index) },
      swatch(t),
      make("span", {}, t.name),
      make("b", {}, number(overlapOf(t.index, s, state.step), 2)),
      make("small", {}, number(valueOf(t.index, s.index))),
    );
  find("readout").replaceChildren(
    make(
      "li",
      { class: "head" },
      make("span", {}, "Overlap in this frame"),
      make("small", {}, `${labels[state.measure]} of the sequence`),
    ),
    ...order.map(row),
  );
}
let playing = null;
function stop() {
  clearInterval(playing);
  playing = null;
  find("play").setAttribute("aria-pressed", "false");
  find("play").textContent = "Play";
}
function advance(by) {
  const steps = stepsOf(chosenSequence());
  const at = steps.indexOf(state.step) + by;
  if (at < 0 || at >= steps.length) return false;
  change({ step: steps[at] });
  return true;
}
find("play").addEventListener("click", () => {
  if (playing) {
    stop();
    return;
  }
  const steps = stepsOf(chosenSequence());
  if (state.step === steps[steps.length - 1]) change({ step: steps[0] });
  find("play").setAttribute("aria-pressed", "true");
  find("play").textContent = "Pause";
  playing = setInterval(
    () => {
      if (!advance(1)) stop();
    },
    films[state.sequence]?.panels && stepsOf(chosenSequence()).length < 60 ? 180 : 60,
  );
});
find("scrub").addEventListener("input", () => {
  stop();
  change({ step: stepsOf(chosenSequence())[Number(find("scrub").value)] });
});

when(["part", "measure", "hidden"], drawList);
when(["sequence", "measure"], () => {
  const s = chosenSequence();
  const known = attributes.filter((part) => part.has(s.index)).map((part) => part.name);
  find("sequence-name").textContent = s.name;
  find("sequence-facts").textContent = [counted(s.frames, "frame"), ...known].join(" · ");
});
when(["sequence", "measure"], drawOverlap);
when(["sequence", "step", "measure"], drawStage);
when(["sequence", "step", "measure"], drawMoment);

// Everything once; then the page is there.
for (const id of ["toolbar", "main", "theme"]) find(id).hidden = false;
const opening = {
  part: state.part,
  measure: state.measure,
  hidden: state.hidden,
  pair: state.pair,
  sequence: listed()[0]?.index ?? 0,
  step: 0,
};
opening.step = stepsOf(sequences[opening.sequence])[0];
change(opening);
markChosen(true);
