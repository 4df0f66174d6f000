"use strict";
// Draws what the server sends. All text is set as text, never as markup.

const $ = (id) => document.getElementById(id);

/** An element with attributes and children; strings become text. */
function node(name, attributes = {}, ...children) {
  const svg = ["svg", "g", "path", "line", "text", "circle", "rect", "title"].includes(name);
  const element = svg ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children.filter((child) => child !== null));
  return element;
}

function show(element, text) {
  if (element.textContent !== text) element.textContent = text;
  element.hidden = text === "";
}

// Numbers.

function short(value) {
  const size = Math.abs(value);
  if (size === 0) return "0";
  const digits = size >= 1000 ? value.toFixed(0) : size >= 0.001 ? String(Number(value.toPrecision(3))) : value.toExponential(1);
  return digits.replace("-", "−");
}

const percent = (share) => `${(100 * share).toFixed(1)} %`;

function duration(seconds) {
  const whole = Math.round(seconds);
  const two = (number) => String(number).padStart(2, "0");
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)}m ${two(whole % 60)}s`;
  return `${Math.floor(whole / 3600)}h ${two(Math.floor((whole % 3600) / 60))}m`;
}

const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;

// The metrics of the run, by step. An evaluation adds its values to those of its step.

const steps = new Map();

function addRows(restarted, rows) {
  if (restarted) steps.clear();
  let last = steps.size > 0 ? Math.max(...[...steps.keys()].slice(-1)) : -1;
  for (const { step, non_finite, ...values } of rows) {
    // A resumed run repeats steps after its checkpoint.
    if (step < last || (step === last && "reward" in values && "reward" in steps.get(step))) {
      for (const later of [...steps.keys()]) if (later >= step) steps.delete(later);
    }
    steps.set(step, { ...steps.get(step), ...values });
    last = step;
  }
}

/** The points of a metric: steps and values. */
function points(metric, scale = 1) {
  const found = [];
  for (const [step, values] of steps) if (typeof values[metric] === "number") found.push([step, scale * values[metric]]);
  return found;
}

const latest = (metric) => points(metric).at(-1)?.[1];

// Charts.

/** Titles, and the metrics with their names in the chart, or the form of the metrics around their names. Metrics that were not logged
 * are left out. */
const CHARTS = [
  ["reward", "", 1, [["reward", "reward"]]],
  ["reward components", "", 1, /^rewards\/(.+)\/mean$/],
  ["reward by prompt", "", 1, /^prompt\/(.+)\/reward$/],
  ["accuracy by prompt", "%", 100, /^prompt\/(.+)\/accuracy$/],
  ["format by prompt", "%", 100, /^prompt\/(.+)\/format$/],
  ["held-out accuracy", "%", 100, [["eval/greedy/accuracy", "greedy"], ["eval/sampled/accuracy", "sampled"]]],
  ["completion length", "tokens", 1, [["completions/mean_length", "mean length"]]],
  ["entropy", "nats", 1, [["entropy", "entropy"]]],
  ["KL to the base model", "nats", 1, [["kl", "KL"]]],
  ["KL to the teacher", "nats", 1, [["distill/kl", "KL"]]],
  ["groups without variance", "%", 100, [["frac_reward_zero_std", "groups"]]],
  ["truncated completions", "%", 100, [["completions/clipped_ratio", "truncated"]]],
  ["gradient norm", "", 1, [["grad_norm", "gradient norm"]]],
  ["learning rate", "", 1, [["learning_rate", "learning rate"]]],
  ["sampler gap", "nats", 1, [["sampling/sampling_logp_difference/mean", "sampler gap"]]],
  ["tokens per second", "", 1, [["tokens_per_second", "tokens per second"]]],
  ["step time", "s", 1, [["step_time", "step time"]]],
  ["peak memory", "GiB", 1, [["peak_memory_gib", "peak memory"]]],
];
const COLORS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#8a7000", "#56b4e9"];
const WIDTH = 320, HEIGHT = 150, LEFT = 44, RIGHT = 8, TOP = 8, BOTTOM = 20;
/** A line has at most this many points; more are averaged. */
const MOST = 400;

/** The logged metrics of a form, with the name that each contains. */
function named(form) {
  const names = new Map();
  for (const values of steps.values()) {
    for (const metric of Object.keys(values)) {
      const found = form.exec(metric);
      if (found) names.set(metric, found[1]);
    }
  }
  return [...names];
}

/** Means of blocks of `size` points. */
function blocks(line, size) {
  if (size <= 1) return line;
  const found = [];
  for (let at = 0; at < line.length; at += size) {
    const block = line.slice(at, at + size);
    found.push([block.at(-1)[0], mean(block.map((point) => point[1]))]);
  }
  return found;
}

/** At each point, the mean of the last `size` points. */
const smooth = (line, size) =>
  line.map(([step], at) => [step, mean(line.slice(Math.max(0, at - size + 1), at + 1).map((point) => point[1]))]);

function ticks(low, high) {
  const rough = (high - low) / 4;
  const power = 10 ** Math.floor(Math.log10(rough));
  const unit = [1, 2, 5, 10].map((it) => it * power).find((it) => it >= rough);
  const found = [];
  for (let tick = Math.ceil(low / unit) * unit; tick <= high + unit / 1e6; tick += unit) found.push(Math.abs(tick) < unit / 1e6 ? 0 : tick);
  return found;
}

function chart(title, unit, series) {
  const all = series.flatMap(({ line }) => line);
  let [low, high] = [Math.min(...all.map((it) => it[1])), Math.max(...all.map((it) => it[1]))];
  const room = low === high ? Math.abs(low) / 2 || 1 : 0.05 * (high - low);
  [low, high] = [low >= 0 ? Math.max(0, low - room) : low - room, high + room];
  const [first, last] = [Math.min(...all.map((it) => it[0])), Math.max(...all.map((it) => it[0]))];
  const x = (step) => LEFT + ((step - first) / Math.max(1, last - first)) * (WIDTH - LEFT - RIGHT);
  const y = (value) => TOP + ((high - value) / (high - low)) * (HEIGHT - TOP - BOTTOM);
  const path = (line) => "M" + line.map(([step, value]) => `${x(step).toFixed(1)} ${y(value).toFixed(1)}`).join("L");
  const svg = node("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": `${title} over steps` });
  for (const tick of ticks(low, high)) {
    svg.append(
      node("line", { x1: LEFT, x2: WIDTH - RIGHT, y1: y(tick), y2: y(tick), class: "grid" }),
      node("text", { x: LEFT - 5, y: y(tick) + 3.5, "text-anchor": "end" }, short(tick)),
    );
  }
  svg.append(
    node("text", { x: LEFT, y: HEIGHT - 5 }, String(first)),
    node("text", { x: WIDTH - RIGHT, y: HEIGHT - 5, "text-anchor": "end" }, `step ${last}`),
  );
  const window = Math.max(1, Math.floor(Math.max(...series.map(({ line }) => line.length)) / 25));
  series.forEach(({ line, dots }, at) => {
    const color = COLORS[at % COLORS.length];
    const block = Math.ceil(line.length / MOST);
    if (dots || line.length === 1) {
      svg.append(node("path", { d: path(line), stroke: color, class: "curve" }));
      for (const [step, value] of line) svg.append(node("circle", { cx: x(step), cy: y(value), r: 2.5, fill: color }));
      return;
    }
    if (window > 1) svg.append(node("path", { d: path(blocks(line, block)), stroke: color, class: "curve raw" }));
    svg.append(node("path", { d: path(blocks(smooth(line, window), block)), stroke: color, class: "curve" }));
  });
  const marker = node("line", { y1: TOP, y2: HEIGHT - BOTTOM, class: "marker", visibility: "hidden" });
  svg.append(marker);
  const reading = node("span", { class: "reading" });
  const readings = series.map(() => node("span"));
  /** Shows the values at a step: of one line beside the title, of several in the legend. */
  const read = (step, isPointed) => {
    const values = series.map(({ line }) => {
      const point = line.findLast((it) => it[0] <= step) ?? line[0];
      return `${short(point[1])}${unit ? ` ${unit}` : ""}`;
    });
    const where = isPointed ? `step ${step}` : "";
    if (series.length > 1) {
      values.forEach((value, at) => { readings[at].textContent = value; });
      reading.textContent = where;
    } else {
      reading.textContent = where ? `${where}: ${values[0]}` : values[0];
    }
  };
  read(last, false);
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const at = ((event.clientX - box.left) / box.width) * WIDTH;
    const wanted = first + ((at - LEFT) / (WIDTH - LEFT - RIGHT)) * (last - first);
    const nearest = all.reduce((best, it) => (Math.abs(it[0] - wanted) < Math.abs(best - wanted) ? it[0] : best), first);
    marker.setAttribute("x1", x(nearest));
    marker.setAttribute("x2", x(nearest));
    marker.setAttribute("visibility", "visible");
    read(nearest, true);
  });
  svg.addEventListener("pointerleave", () => {
    marker.setAttribute("visibility", "hidden");
    read(last, false);
  });
  const legend = series.length > 1
    ? series.map(({ name }, at) => {
      const item = node("span", {}, `${name} `, readings[at]);
      const swatch = node("svg", { viewBox: "0 0 10 10", class: "swatch" }, node("rect", { width: 10, height: 10, fill: COLORS[at % COLORS.length] }));
      item.prepend(swatch);
      return item;
    })
    : [];
  const note = window > 1 ? `mean of ${window} steps` : "";
  return node("figure", { class: "panel" }, node("figcaption", {}, node("b", {}, title), " ", reading), svg,
    node("p", { class: "legend" }, ...legend, note ? node("span", {}, note) : null));
}

function drawCharts() {
  const [panels, constant] = [[], []];
  for (const [title, unit, scale, metrics] of CHARTS) {
    const of = metrics instanceof RegExp ? named(metrics) : metrics;
    const series = of.map(([metric, name]) => ({ name, line: points(metric, scale), dots: metric.startsWith("eval/") }))
      .filter(({ line }) => line.length > 0);
    if (series.length === 0) continue;
    const value = series[0].line[0][1];
    if (series.length === 1 && steps.size > 2 && series[0].line.every((point) => point[1] === value)) {
      constant.push(`${title} ${short(value)}${unit ? ` ${unit}` : ""}`);
    } else {
      panels.push(chart(title, unit, series));
    }
  }
  $("charts").replaceChildren(...panels);
  show($("constant"), constant.length > 0 ? `The same at every step: ${constant.join(", ")}.` : "");
}

// A run.

let run = null;

function tile(name, value) {
  return value === undefined ? null : node("div", {}, node("dt", {}, name), node("dd", {}, value));
}

function drawRun() {
  if (run === null) return;
  document.title = `${run.step}/${run.steps} ${run.name}`;
  show($("title"), run.name);
  const left = run.state === "running" && run.seconds_per_step && run.steps > run.step
    ? `, ${duration(run.seconds_per_step * (run.steps - run.step))} left` : "";
  show($("state"), `${run.state}: step ${run.step} of ${run.steps}${left}`);
  $("state").className = run.state;
  show($("about"), `prior prompt ${run.prompt} · model ${run.model} · data ${run.data} · seed ${run.seed} · device ${run.device}` +
    (run.started ? ` · started ${run.started.replace("T", " ").replace("Z", " UTC")}` : ""));
  $("done").max = run.steps;
  $("done").value = run.step;
  const number = (metric, text) => (latest(metric) === undefined ? undefined : text(latest(metric)));
  $("tiles").replaceChildren(...[
    tile("reward", number("reward", (it) => it.toFixed(3))),
    tile("accuracy", number("rewards/accuracy/mean", percent)),
    tile("format", number("rewards/format/mean", percent)),
    tile("mean length", number("completions/mean_length", (it) => `${it.toFixed(1)} tokens`)),
    tile("tokens per second", number("tokens_per_second", (it) => it.toFixed(0))),
    tile("step time", number("step_time", (it) => (it < 60 ? `${short(it)} s` : duration(it)))),
    tile("peak memory", number("peak_memory_gib", (it) => `${it.toFixed(2)} GiB`)),
    tile("tokens trained", number("num_tokens", (it) => it.toLocaleString("en"))),
  ].filter((it) => it !== null));
}

let newest = null;

/** Text with tags and boxes marked, as in the report. */
function tagged(text) {
  const pre = node("pre");
  let last = 0;
  for (const found of text.matchAll(/<\/?[A-Za-z][A-Za-z0-9_-]{0,30}>|\\boxed\{/g)) {
    const name = found[0].replace(/[<>/\\{]/g, "");
    pre.append(text.slice(last, found.index));
    pre.append(node("b", { class: name === "answer" || name === "boxed" ? name : "tag" }, found[0]));
    last = found.index + found[0].length;
  }
  pre.append(text.slice(last));
  return pre;
}

function completion(it) {
  const verdict = typeof it.verdict === "string" ? it.verdict : "undecided";
  const rewards = Object.entries(it.rewards).map(([name, value]) => `${name} ${value === null ? "–" : short(value)}`);
  const advantage = `${it.advantage > 0 ? "+" : ""}${it.advantage.toFixed(2).replace("-", "−")}`;
  const reasons = [it.answer === null ? "no answer" : `answer ${it.answer}`, `${it.tokens} tokens`, `ended by ${it.finish}`, it.note, it.verdict.undecided];
  return node("div", { class: `completion ${verdict}` },
    node("h3", {}, `reward ${short(it.reward)}, advantage ${advantage} `, node("span", { class: "verdict" }, verdict)),
    node("p", { class: "reason" }, rewards.join(", ")),
    node("p", { class: "reason" }, reasons.filter((reason) => reason).join("; ")),
    tagged(it.text));
}

function drawGroup() {
  if (newest === null) return;
  const group = newest;
  show($("which"), `Step ${group.step}, question ${group.question_id}` +
    (group.count > group.completions.length ? `, ${group.completions.length} of ${group.count} completions` : ""));
  const prior = run?.prior_prompts.find((it) => !group.ppe || it.name === group.ppe);
  const isOpen = document.querySelector("#asked details")?.open ?? false;
  const details = prior?.text
    ? node("details", {}, node("summary", {}, `Prior prompt ${prior.name} (${prior.role === "system" ? "system message" : "before the question"})`), tagged(prior.text))
    : null;
  if (details !== null) details.open = isOpen;
  $("asked").replaceChildren(...[details, node("p", { class: "asked" }, group.question), node("p", { class: "gold" }, "Gold answer: ", node("code", {}, group.gold))].filter((it) => it !== null));
  // Best first: what the step reinforces.
  const sorted = [...group.completions].sort((a, b) => b.advantage - a.advantage);
  $("completions").replaceChildren(...sorted.map(completion));
}

function startRun(events) {
  if (run !== null) return;
  const hold = node("input", { type: "checkbox", id: "hold" });
  $("main").replaceChildren(
    node("progress", { id: "done", value: 0, max: 1, "aria-label": "Steps done" }),
    node("dl", { id: "tiles" }),
    node("h2", {}, "Metrics"),
    node("p", { id: "waiting" }, "No step is finished yet."),
    node("div", { id: "charts" }),
    node("p", { id: "constant", class: "count", hidden: "" }),
    node("h2", {}, "Newest group"),
    node("p", { class: "bar" }, node("span", { id: "which" }, "No group is finished yet."), " ", node("label", {}, hold, " Keep this group")),
    node("div", { id: "asked" }),
    node("div", { id: "completions", class: "answers" }),
  );
  hold.addEventListener("change", () => { if (!hold.checked && events.group) { newest = events.group; drawGroup(); } });
}

// The table of runs.

function drawTable({ title, note, rows, skipped }) {
  document.title = title;
  show($("title"), title);
  show($("state"), note);
  const names = ["run", "state", "steps", "", "reward", "time left", rows.some((row) => row.model) ? "prior prompt" : "arm", "seed"];
  const more = [["model", (row) => row.model], ["evaluations", (row) => row.evaluations]].filter(([, of]) => rows.some((row) => of(row)));
  const numeric = ["steps", "reward", "time left", "seed"];
  const head = node("tr", {}, ...[...names, ...more.map(([name]) => name)].map((name) =>
    node("th", { scope: "col", class: numeric.includes(name) ? "number" : "" }, name)));
  const body = rows.map((row) => {
    const link = row.is_started ? node("a", { href: `/?run=${encodeURIComponent(row.name)}` }, row.name) : row.name;
    const number = (text) => node("td", { class: "number" }, text);
    return node("tr", {},
      node("td", {}, link),
      node("td", { class: row.state }, row.state),
      number(row.steps === null ? String(row.step) : `${row.step} of ${row.steps}`),
      node("td", {}, row.steps === null ? "" : node("progress", { value: row.step, max: row.steps, "aria-label": "Steps done" })),
      number(row.reward === null ? "–" : row.reward.toFixed(3)),
      number(row.seconds_left === null || row.state === "done" ? "–" : duration(row.seconds_left)),
      node("td", {}, row.arm),
      number(String(row.seed)),
      ...more.map(([, of]) => node("td", {}, of(row) ?? "")));
  });
  $("main").replaceChildren(
    rows.length === 0 ? node("p", {}, "There are no runs yet. A run appears here when `rft train` has started it.")
      : node("div", { class: "scroll" }, node("table", {}, node("thead", {}, head), node("tbody", {}, ...body))),
    ...skipped.map((text) => node("p", { class: "note" }, text)),
  );
}

// Events.

const name = new URLSearchParams(location.search).get("run");
$("back").hidden = name === null;
const source = new EventSource(name === null ? "/events" : `/events?run=${encodeURIComponent(name)}`);
const events = {};
const on = (kind, act) => source.addEventListener(kind, (event) => act(JSON.parse(event.data)));
let lost = false;

on("run", (header) => { startRun(events); run = header; drawRun(); });
on("metrics", ({ restarted, rows }) => {
  startRun(events);
  addRows(restarted, rows);
  $("waiting").hidden = steps.size > 0;
  drawRun();
  drawCharts();
});
on("group", (group) => {
  startRun(events);
  events.group = group;
  if ($("hold").checked && newest !== null) return;
  newest = group;
  drawGroup();
});
on("table", drawTable);
on("problem", (text) => { if (!lost) show($("problem"), text); });
source.addEventListener("open", () => {
  // The server sends everything again.
  steps.clear();
  lost = false;
  show($("problem"), "");
});
source.addEventListener("error", () => {
  lost = true;
  show($("problem"), source.readyState === EventSource.CLOSED
    ? "The server refuses to show this run. It may have been deleted."
    : "The connection to `rft watch` is lost. This page shows the last state and reconnects when it runs again.");
});
