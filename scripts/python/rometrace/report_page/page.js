"use strict";
// Draws the page from the data that report.py packed into it. Text from results only ever becomes textContent.

const KINDS = {
  state: { name: "state", title: "States restored", hue: 300, chroma: 0.18 },
  mlp: { name: "MLP", title: "MLP outputs restored", hue: 150, chroma: 0.135 },
  attn: { name: "attention", title: "Attention outputs restored", hue: 30, chroma: 0.175 },
  state_mlp_severed: { name: "state, MLP severed", title: "States restored, MLP severed", hue: 195, chroma: 0.09 },
  state_attn_severed: { name: "state, attention severed", title: "States restored, attention severed", hue: 350, chroma: 0.17 },
  head: { name: "heads", title: "Heads restored, the strongest of each cell", hue: 60, chroma: 0.12 },
};
const GAPS = { mlp: "MLP", attn: "attention" };
const CUTS = { before: "before the subject", subject: "the subject", after: "after the subject", last: "the last position" };
const SETS = { best: "the best by estimate", change: "whose values change most", random: "random, mean of 10 orders" };
let noising = false; // corrupted values were put into the clean run; effects are what the probability loses
let interaction = false; // maps show what corrupting takes away less what restoring brings back
let approximate = false;
const ROLES = {
  first_subject: "First subject token",
  middle_subject: "Middle subject tokens",
  last_subject: "Last subject token",
  first_subsequent: "First subsequent token",
  further: "Further tokens",
  last: "Last token",
};
const CAUSES = {
  other_answer: "the model's answer is not the object",
  first_token: "the answer is only the first token of the object",
  not_known: "the model does not know the fact",
  no_object: "no object to follow",
  record: "bad record",
  subject: "subject not in the prompt",
  prompt: "prompt cannot be used",
  trace: "trace without a result",
};
const COLUMNS = [
  { key: "record", name: "record", width: "w-record", number: true, rising: true, show: String },
  { key: "relation", name: "relation", width: "w-text" },
  { key: "subject", name: "subject", width: "w-text" },
  { key: "prompt", name: "prompt", width: "w-wide" },
  { key: "object", name: "object", width: "w-short" },
  { key: "answer", name: "answer", width: "w-short" },
  { key: "status", name: "status", width: "w-short" },
  { key: "high", name: "clean", width: "w-number", number: true, over: "probability of the answer" },
  { key: "low", name: "corrupted", width: "w-long", number: true, over: "probability of the answer" },
  { key: "effect", name: "total", width: "w-number", number: true, over: "effect" },
  { key: "state", name: "state", width: "w-number", number: true, over: "largest, last subject token" },
  { key: "mlp", name: "MLP", width: "w-number", number: true, over: "largest, last subject token" },
  { key: "attn", name: "attn", width: "w-number", number: true, over: "largest, last subject token" },
];
const ROW = 30; // pixels, as in the style
const NO_ERROR = 65535;
const DASH = "–";

const $ = (id) => document.getElementById(id);

// --- Elements ------------------------------------------------------------------------------------------------------

/** An element with attributes and children; strings become text. */
function make(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

function draw(tag, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) if (value !== null) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** Sets styles, which the page's policy lets a script do only one by one. */
function place(element, styles) {
  for (const [name, value] of Object.entries(styles)) element.style[name] = typeof value === "number" ? `${value}px` : value;
  return element;
}

function clamp(value, low, high) {
  return Math.min(high, Math.max(low, value));
}

/** A probability or an effect, to four digits. */
function show(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return DASH;
  if (value === 0) return "0";
  const size = Math.abs(value);
  return (size < 1e-4 ? value.toExponential(1) : value.toFixed(size < 0.01 ? 5 : 4)).replace("-", "−");
}

function count(number, one, many = `${one}s`) {
  return `${number.toLocaleString("en")} ${number === 1 ? one : many}`;
}

/** Calls when the width has changed and stays. */
function onResize(call) {
  let [waiting, width] = [0, innerWidth];
  addEventListener("resize", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => innerWidth !== width && ((width = innerWidth), call()), 150);
  });
}

// --- Unpacking -----------------------------------------------------------------------------------------------------

/** The bytes that were compressed by zlib and written in base64. */
async function unpack(text) {
  const packed = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

async function unpackIndex() {
  return JSON.parse(new TextDecoder().decode(await unpack($("index").textContent)));
}

/** A fact's grids: see pack() in report.py. */
async function unpackFact([block, begin, end], layers) {
  const bytes = await unpack($(`block-${block}`).textContent.slice(begin, end));
  const length = new DataView(bytes.buffer).getUint32(0, true);
  const fact = JSON.parse(new TextDecoder().decode(bytes.subarray(4, 4 + length)));
  let at = 4 + length;
  const take = (cells) => {
    const values = Array.from({ length: cells }, (_, i) => 256 * bytes[at + i] + bytes[at + cells + i]);
    at += 2 * cells;
    return values;
  };
  for (const grid of [fact.grids, ...Object.values(fact.others ?? {})].flatMap(Object.values)) {
    const cells = grid.positions.length * layers;
    grid.effects = take(cells).map((value) => (value > 32767 ? value - 65536 : value) * grid.effect_step);
    grid.errors = take(cells).map((value) => (value === NO_ERROR ? null : value * grid.error_step));
  }
  return fact;
}

// --- Colours -------------------------------------------------------------------------------------------------------

/** Red, green and blue, 0 to 255, of a colour in OKLCH (lightness 0 to 1, chroma, hue in degrees). */
function oklch(lightness, chroma, hue) {
  const a = chroma * Math.cos((hue * Math.PI) / 180);
  const b = chroma * Math.sin((hue * Math.PI) / 180);
  const l = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3;
  const m = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3;
  const s = (lightness - 0.0894841775 * a - 1.291485548 * b) ** 3;
  return [
    4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s,
    -1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s,
    -0.0041960863 * l - 0.7034186147 * m + 1.707614701 * s,
  ].map((value) => {
    const linear = clamp(value, 0, 1);
    return Math.round(255 * (linear <= 0.0031308 ? 12.92 * linear : 1.055 * linear ** (1 / 2.4) - 0.055));
  });
}

/** One hue from light to dark: equal steps are equal steps of lightness, so it reads without telling colours apart. */
const RAMPS = Object.fromEntries(
  Object.entries(KINDS).map(([kind, { hue, chroma }]) => [
    kind,
    Array.from({ length: 256 }, (_, i) => {
      const x = i / 255;
      const rise = x < 0.6 ? Math.sin((Math.PI / 2) * (x / 0.6)) : 1 - 0.3 * ((x - 0.6) / 0.4) ** 2;
      return oklch(0.985 - 0.645 * x, 0.004 + chroma * rise, hue);
    }),
  ]),
);

/** From blue over white at 0 to red. */
const DIVERGING = Array.from({ length: 256 }, (_, i) => {
  const x = Math.abs(i / 127.5 - 1);
  return oklch(0.985 - 0.6 * x, 0.17 * Math.sin((Math.PI / 2) * Math.min(1, 1.4 * x)), i < 128 ? 255 : 30);
});

/** A canvas with a pixel a value; null stays clear. */
function paint(values, columns, name, [low, high]) {
  const ramp = name === "interaction" ? DIVERGING : RAMPS[name];
  const rows = values.length / columns;
  const canvas = make("canvas", { width: columns, height: rows });
  const context = canvas.getContext("2d");
  const image = context.createImageData(columns, rows);
  values.forEach((value, i) => {
    if (value === null) return;
    const step = clamp(Math.round((255 * (value - low)) / (high - low)), 0, 255);
    image.data.set([...ramp[step], 255], 4 * i);
  });
  context.putImageData(image, 0, 0);
  return canvas;
}

// --- Tip -----------------------------------------------------------------------------------------------------------

function showTip(text, x, y) {
  const tip = $("tip");
  tip.textContent = text;
  tip.hidden = false;
  const { width, height } = tip.getBoundingClientRect();
  const left = x + 16 + width > innerWidth ? x - 16 - width : x + 16;
  const top = y + 16 + height > innerHeight ? y - 16 - height : y + 16;
  place(tip, { left: Math.max(4, left), top: Math.max(4, top) });
}

function hideTip() {
  $("tip").hidden = true;
}

// --- Heat maps -----------------------------------------------------------------------------------------------------

/** Width of a picture: three stand in a row, on a narrow page fewer. */
function third() {
  const room = $("main").clientWidth;
  return Math.min(room / (room > 1200 ? 3 : room > 800 ? 2 : 1) - 34, 560);
}

/** Layers that get a number. */
function ticksOf(layers, most) {
  const step = [1, 2, 5, 10, 20, 50, 100, 200, 500].find((s) => layers <= most * s) ?? layers;
  return Array.from({ length: Math.ceil(layers / step) }, (_, i) => i * step);
}

function windowText(kind, window, layer, layers) {
  if (!isWindowed(kind, window)) return `layer ${layer}`;
  const first = Math.max(0, layer - Math.floor(window / 2));
  const last = Math.min(layers, layer + Math.ceil(window / 2)) - 1;
  return `layer ${layer} (${KINDS[kind].name} of ${first === last ? first : `${first} to ${last}`} ${done()})`;
}

function isWindowed(kind, window) {
  return kind === "mlp" || kind === "attn" || window > 1;
}

/** What a patch does. */
function done() {
  return interaction ? "patched" : noising ? "corrupted" : "restored";
}

function titleOf(kind) {
  return KINDS[kind].title.replace("restored", done()) + (interaction ? ", interaction" : "") + (approximate ? " (approximation)" : "");
}

/**
 * A heat map. labels: [{text, star}] of the rows; values: rows x layers, null where a row has none;
 * describe(row, layer): text of the tip; summary: text for those who do not see it.
 */
function heatMap({ title, kind, ramp = kind, labels, values, layers, range, below, barLabel, describe, summary }) {
  const height = clamp(Math.floor(600 / labels.length), 14, 22);
  const longest = Math.min(160, 7.2 * labels.reduce((most, { text, star }) => Math.max(most, text.length + (star ? 1 : 0)), 0));
  const width = clamp(Math.floor((third() - longest - 85) / layers), 3, 40);
  const canvas = place(paint(values, layers, ramp, range), { width: width * layers, height: height * labels.length });
  const cursor = place(make("div", { class: "cursor", hidden: "" }), { width, height });
  const field = make(
    "div",
    {
      class: "field",
      tabindex: 0,
      role: "application",
      "aria-roledescription": "heat map",
      "aria-label": `${title}. ${summary} Arrow keys move from cell to cell.`,
    },
    canvas,
    cursor,
  );
  labels.forEach((label, row) => {
    if (values[row * layers] === null) {
      const note = make("div", { class: "absent" }, make("span", {}, "no such token traced"));
      field.append(place(note, { top: row * height, height, lineHeight: `${height}px` }));
    }
  });
  const names = make("div", { class: "labels" }, ...labels.map(({ text, star }) =>
    place(make("span", { class: star ? "star" : null, title: text }, star ? `${text}*` : text), { height, lineHeight: `${height + 2}px` })));
  const ticks = make("div", { class: "ticks" }, ...ticksOf(layers, third() < 420 ? 9 : 13).map((layer) =>
    place(make("span", {}, String(layer)), { left: (layer + 0.5) * width + 1 })));
  let cell = [0, 0];
  const reveal = (row, layer, x, y) => {
    cell = [row, layer];
    cursor.hidden = false;
    place(cursor, { left: layer * width, top: row * height });
    const text = describe(row, layer);
    showTip(text, x, y);
    return text;
  };
  const hide = () => {
    cursor.hidden = true;
    hideTip();
  };
  const revealHere = () => {
    const box = canvas.getBoundingClientRect();
    $("live").textContent = reveal(...cell, box.left + (cell[1] + 1) * width, box.top + (cell[0] + 1) * height);
  };
  field.addEventListener("pointermove", (event) => {
    const box = canvas.getBoundingClientRect();
    const row = Math.floor((event.clientY - box.top) / height);
    const layer = Math.floor((event.clientX - box.left) / width);
    if (row < 0 || layer < 0 || row >= labels.length || layer >= layers) return hide();
    reveal(row, layer, event.clientX, event.clientY);
  });
  field.addEventListener("pointerleave", hide);
  field.addEventListener("blur", hide);
  field.addEventListener("keydown", (event) => {
    const moves = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1], Home: [0, -layers], End: [0, layers], Enter: [0, 0] };
    if (event.key === "Escape") return hide();
    if (!(event.key in moves) || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    const [down, right] = cursor.hidden ? [0, 0] : moves[event.key];
    cell = [clamp(cell[0] + down, 0, labels.length - 1), clamp(cell[1] + right, 0, layers - 1)];
    revealHere();
  });
  return make(
    "figure",
    { class: "map", "data-kind": kind },
    make("figcaption", {}, title),
    make("div", { class: "plot" }, names, field, colourBar(ramp, range, height * labels.length, barLabel), ticks, make("div", { class: "below" }, below)),
  );
}

function colourBar(kind, [low, high], height, label) {
  const canvas = place(paint(Array.from({ length: 64 }, (_, i) => 1 - i / 63), 1, kind, [0, 1]), { height: height + 2 });
  const marks = height < 60 ? [low, high] : [low, (low + high) / 2, high];
  const texts = marks.map((value) => {
    const top = height * (1 - (value - low) / (high - low));
    const digits = value.toPrecision(value < 0 ? 2 : 3);
    const text = digits.replace(/(\.\d*?)0+$/, "$1").replace(/\.$/, "").replace("-", "−");
    return place(make("span", {}, text), { top: clamp(top, 5, height - 4) });
  });
  return make("div", { class: "bar", title: label }, canvas, ...texts);
}

// --- Averages ------------------------------------------------------------------------------------------------------

function startAverages(summary) {
  if (!summary) {
    $("averages").hidden = true;
    return;
  }
  const groups = [["all facts", summary.overall]];
  for (const [by, values] of Object.entries(summary.by ?? {})) {
    for (const [name, group] of Object.entries(values)) groups.push([`${by} = ${name}`, group]);
  }
  groups.forEach(([name, group], i) => $("group").append(make("option", { value: i }, `${name} (${group.facts})`)));
  const redraw = () => drawAverages(summary, groups[$("group").value][1], $("band").value, $("scale").value / 100);
  for (const id of ["group", "band", "scale"]) $(id).addEventListener("input", redraw);
  const { replicates, seed, method } = summary.bootstrap ?? {};
  onResize(redraw);
  $("rule").textContent = [summary.roles?.rule && `Token roles: ${summary.roles.rule}`,
    replicates && `Bootstrap: ${replicates} replicates, seed ${seed}${method ? `, ${method}` : ""}.`].filter(Boolean).join(" ");
  redraw();
}

function drawAverages(summary, group, band, share) {
  const layers = summary.model.layers;
  const present = Object.keys(KINDS).filter((kind) => kind in group.kinds);
  const kinds = present.filter((kind) => kind !== "head");
  for (const id of ["rollups", "lines", "legend", "effects", "peaks", "neurons"]) $(id).replaceChildren();
  $("caveat").hidden = true;
  if (!group.facts) {
    $("rollups").append(make("p", {}, "No fact was traced."));
    return;
  }
  const all = kinds.flatMap((kind) => Object.values(group.kinds[kind].roles).flatMap((role) => role.aie ?? []));
  $("scale").disabled = !all.length;
  if (all.length) drawKinds(kinds, group, layers, band, share, all);
  if (present.includes("head")) drawHeads(group.kinds.head, layers);
  drawGaps(group.gaps ?? {}, layers, band);
  if (group.knockout) drawKnockout(group.knockout, layers, band);
  if (group.neurons) drawSharedNeurons(group.neurons, band);
  fillEffects(group, present);
  fillPeaks(group, present, band);
}

/** Roll-ups and lines of the kinds, all on one scale. */
function drawKinds(kinds, group, layers, band, share, all) {
  const low = all.reduce((a, b) => Math.min(a, b));
  const largest = all.reduce((a, b) => Math.max(a, b));
  const end = Math.max(largest * share, low + 1e-9);
  $("scale-end").textContent = show(end);
  const series = Object.fromEntries(kinds.map((kind) => [kind, seriesOf(group.kinds[kind].roles, band)]));
  const [first, last] = endsOf(Object.values(series).flat());
  const limits = [first, share < 1 ? end : last];
  for (const kind of kinds) {
    const { window } = group.kinds[kind];
    $("rollups").append(rollUp(kind, group, layers, [low, end], band));
    $("lines").append(lineChart({
      kind,
      title: `${KINDS[kind].name}: ${kind.endsWith("severed") ? "AIE" : "average indirect effect"} by layer`,
      series: series[kind],
      layers,
      limits,
      below: below(kind, window),
      heading: (layer) => windowText(kind, window, layer, layers),
    }));
  }
  for (const [role, name] of Object.entries(ROLES)) {
    const facts = group.kinds[kinds[0]].roles[role]?.facts ?? 0;
    $("legend").append(legendEntry(role, `${name} (n = ${facts})`));
  }
}

function legendEntry(style, text) {
  return make("li", {}, draw("svg", { width: 44, height: 8 }, draw("path", { d: "M0 4H44", class: style })), text);
}

/** Lines of a chart from averages by role. */
function seriesOf(roles, band) {
  return Object.entries(ROLES).filter(([role]) => roles[role]?.aie)
    .map(([role, name]) => ({ style: role, name, values: roles[role].aie, ...bandOf(roles[role], band) }));
}

/** Ends of the intervals, if there are any, times `factor`. */
function bandOf(averages, band, factor = 1) {
  const [lows, highs] = [averages[`${band}_low`], averages[`${band}_high`]];
  if (!lows || !highs || [...lows, ...highs].includes(null)) return { lows: null, highs: null };
  return { lows: lows.map((value) => factor * value), highs: highs.map((value) => factor * value) };
}

/** The axis that holds all lines and intervals, and zero. */
function endsOf(series) {
  const axis = series.flatMap(({ values, lows, highs }) => [...values, ...(lows ?? []), ...(highs ?? [])]).filter((value) => value !== null);
  return [axis.reduce((a, b) => Math.min(a, b), 0), axis.reduce((a, b) => Math.max(a, b), 0)];
}

/** Heads by layers at the last subject token, or at the first role that has any. */
function drawHeads({ window, heads, roles }, layers) {
  const role = ["last_subject", ...Object.keys(ROLES)].find((key) => roles[key]?.aie);
  if (!role) return;
  const { aie, facts, standard_error: errors } = roles[role];
  const values = Array.from({ length: heads * layers }, (_, cell) => aie[cell % layers][Math.floor(cell / layers)]);
  const [low, high] = [values.reduce((a, b) => Math.min(a, b)), values.reduce((a, b) => Math.max(a, b))];
  const best = values.indexOf(high);
  const describe = (head, layer) => [
    `head ${head}, ${ROLES[role].toLowerCase()}`,
    windowText("head", window, layer, layers),
    `average indirect effect ${show(aie[layer][head])}`,
    ...(errors?.[layer]?.[head] != null ? [`standard error ${show(errors[layer][head])}`] : []),
    count(facts, "fact"),
  ].join("\n");
  $("rollups").append(heatMap({
    title: `Average indirect effect: heads, ${ROLES[role].toLowerCase()}, ${count(facts, "prompt")}`,
    kind: "head",
    labels: Array.from({ length: heads }, (_, head) => ({ text: `head ${head}` })),
    values,
    layers,
    range: [low, Math.max(high, low + 1e-9)],
    below: below("head", window),
    barLabel: "average indirect effect",
    describe,
    summary: `Largest ${show(high)}: head ${Math.floor(best / layers)}, layer ${best % layers}.`,
  }));
}

/** Of each role with neurons the mean curves of sets, and those that most facts tell of. */
function drawSharedNeurons({ candidates, roles }, band) {
  for (const [key, name] of Object.entries(ROLES)) {
    const role = roles[key];
    if (!role?.facts) continue;
    if (role.sets?.effect) {
      const curve = (averages) => ({ values: averages.effect, ...bandOf(averages, band) });
      $("lines").append(setsChart({
        kind: `neurons-${key}`,
        title: `Neurons ${done()}, ${name.toLowerCase()}, ${count(role.facts, "fact")}`,
        sizes: role.neurons,
        candidates,
        curves: { best: curve(role.sets), change: curve(role.controls.change), random: curve(role.controls.random) },
      }));
    }
    $("neurons").append(sharedTable(name, role, band));
  }
}

function sharedTable(name, { facts, best, overlap, half }, band) {
  const rows = best.map((each) => [`${each.layer}:${each.neuron}`, String(each.facts), `${(100 * each.share).toFixed(0)} %`,
    show(each.indirect_effect.mean), intervalText(each.indirect_effect[band]), each.promotes ? `“${each.promotes.trim() || each.promotes}”` : DASH]);
  const table = make("table", { class: "numbers" }, headOf(["layer:neuron", "facts", "share", "mean effect in them", `95 % ${band}`, "promotes"]),
    make("tbody", {}, ...rows.map((texts) => make("tr", {}, ...texts.map((text) => make("td", {}, text))))));
  const percent = (value) => `${(100 * value).toFixed(1)} %`;
  const pairs = Object.entries({ same_relation: "of one relation", same_subject: "of one subject", neither: "of neither" })
    .filter(([sort]) => overlap?.[sort].share != null)
    .map(([sort, text]) => `${text} ${percent(overlap[sort].share)} (by chance ${percent(overlap[sort].chance)})`);
  const notes = [pairs.length ? `Two facts share of their neurons: ${pairs.join(", ")}.` : "",
    half?.median != null ? `Half of what all do: ${percent(half.median)} of the neurons (median); none in ${half.none} of ${half.tokens}.` : ""];
  return make("details", {}, make("summary", {}, `Neurons that most of ${count(facts, "fact")} tell of: ${name.toLowerCase()}`),
    make("div", { class: "scroll" }, table), make("p", { class: "note" }, notes.filter(Boolean).join(" ")));
}

/** What severing takes from the states' effects. */
function drawGaps(gaps, layers, band) {
  const severed = Object.keys(GAPS).filter((name) => name in gaps);
  const series = Object.fromEntries(severed.map((name) => [name, seriesOf(gaps[name].roles, band)]));
  const limits = endsOf(Object.values(series).flat());
  for (const name of severed) {
    $("lines").append(lineChart({
      kind: `gap-${name}`,
      title: `state: effect lost by severing the ${GAPS[name]}`,
      series: series[name],
      layers,
      limits,
      below: below("state", 1),
      heading: (layer) => `layer ${layer}`,
    }));
  }
  $("caveat").hidden = !severed.length;
}

/** Relative changes in percent, with attention cut. */
function drawKnockout({ window, groups }, layers, band) {
  const series = cutSeries(groups, (group) => `n = ${group.facts}`, (group) => bandOf(group, band, 100));
  if (series.length) $("lines").append(knockoutChart(series, window, layers));
}

function cutSeries(groups, remark, ends) {
  return Object.entries(CUTS).filter(([name]) => groups[name]?.relative_change).map(([name, text]) => ({
    style: `cut-${name}`,
    name: `${text} (${remark(groups[name])})`,
    values: groups[name].relative_change.map((value) => (value === null ? null : 100 * value)),
    ...ends(groups[name]),
  }));
}

function knockoutChart(series, window, layers) {
  const figure = lineChart({
    kind: "knockout",
    title: "Attention cut: change of probability, %",
    series,
    layers,
    limits: endsOf(series),
    below: `centre of ${window} layers`,
    heading: (layer) => `layers around ${layer} cut, change in %`,
  });
  const legend = make("ul", { class: "legend" }, ...series.map(({ style, name }) => legendEntry(style, `to ${name}`)));
  figure.append(place(legend, { maxWidth: third() - 10 }));
  return figure;
}

function below(kind, window, model = "") {
  return isWindowed(kind, window) ? `centre of ${window} ${done()} ${KINDS[kind].name} layers` : `layer${model && ` of ${model}`}`;
}

function describeRole(kind, window, role, layer, layers, band) {
  if (!role.aie) return `${role.name}\nno such token traced in any fact`;
  const low = role[`${band}_low`]?.[layer] ?? null;
  const lines = [role.name, windowText(kind, window, layer, layers), `average indirect effect ${show(role.aie[layer])}`];
  if (low !== null) lines.push(`95 % interval ${show(low)} to ${show(role[`${band}_high`][layer])} (${band})`);
  if (role.standard_error?.[layer] != null) lines.push(`standard error ${show(role.standard_error[layer])}`);
  if (role.score) lines.push(`average probability ${show(role.score[layer])}`);
  lines.push(`${count(role.facts, "fact")}, ${count(role.tokens, "token")}`);
  return lines.join("\n");
}

function rollUp(kind, group, layers, range, band) {
  const { window, roles } = group.kinds[kind];
  const rows = Object.entries(ROLES).map(([key, name]) => ({ ...roles[key], name }));
  const best = rows.filter((row) => row.aie).map((row) => [Math.max(...row.aie), row]).sort((a, b) => b[0] - a[0])[0];
  return heatMap({
    title: `Average indirect effect: ${KINDS[kind].name}, ${count(group.facts, "prompt")}`,
    kind,
    labels: rows.map(({ name }) => ({ text: name })),
    values: rows.flatMap(({ aie }) => aie ?? Array(layers).fill(null)),
    layers,
    range,
    below: below(kind, window),
    barLabel: "average indirect effect",
    describe: (row, layer) => describeRole(kind, window, rows[row], layer, layers, band),
    summary: best ? `Largest ${show(best[0])}: ${best[1].name}, layer ${best[1].aie.indexOf(best[0])}.` : "",
  });
}

/**
 * Lines by layer. series: [{style, name, values, lows, highs}], lows and highs null without a band, a value null for none;
 * heading(layer): first line of the tip. What is not by layer gives `at`, the places (0 to 1) of its values, `marks`, the
 * [place, text] below the axis, and `unit`, what the arrow keys move between; level: [place, value, text] of dashed lines.
 */
function lineChart({ kind, title, series, layers, limits: [low, high], below: under, heading, at, marks, unit = "layer", level }) {
  const [left, top, width, height] = [46, 26, third() - 72, 190];
  const places = at ?? Array.from({ length: layers }, (_, layer) => (layers > 1 ? layer / (layers - 1) : 0.5));
  const x = (layer) => left + places[layer] * width;
  const y = (value) => top + height * (1 - (clamp(value, low, high) - low) / (high - low || 1));
  const path = (values) => {
    const whole = values.map((value, layer) => [layer, value]).filter(([, value]) => value !== null);
    return whole.map(([layer, value], i) => `${i ? "L" : "M"}${x(layer).toFixed(1)} ${y(value).toFixed(1)}`).join("");
  };
  const chart = draw("svg", {
    class: "chart",
    width: left + width + 16,
    height: top + height + 44,
    tabindex: 0,
    role: "application",
    "aria-roledescription": "line chart",
    "aria-label": `${title}. Arrow keys move from ${unit} to ${unit}.`,
  });
  chart.append(draw("text", { x: left, y: 14, class: "title" }, title));
  for (const value of axisMarks(low, high)) {
    chart.append(draw("path", { class: value === 0 ? "axis" : "zero", d: `M${left} ${y(value)}H${left + width}` }));
    chart.append(draw("text", { x: left - 6, y: y(value) + 4, "text-anchor": "end" }, String(value).replace("-", "−")));
  }
  for (const [share, text] of marks ?? ticksOf(layers, third() < 420 ? 9 : 13).map((layer) => [places[layer], String(layer)])) {
    chart.append(draw("text", { x: left + share * width, y: top + height + 16, "text-anchor": "middle" }, text));
  }
  chart.append(draw("text", { x: left + width / 2, y: top + height + 34, "text-anchor": "middle" }, under));
  for (const { style, lows, highs } of series) {
    if (!lows || !highs) continue;
    const back = highs.map((value, layer) => `L${x(layer).toFixed(1)} ${y(value).toFixed(1)}`).reverse().join("");
    chart.append(draw("path", { class: `area ${style}`, d: `${path(lows)}${back}Z` }));
  }
  for (const { style, values } of series) {
    chart.append(draw("path", { class: style, d: path(values) }));
    if (layers === 1 && values[0] !== null) chart.append(draw("circle", { class: style, cx: x(0), cy: y(values[0]), r: 3 }));
  }
  if (level) {
    const [share, value, text] = level;
    const [px, onLeft] = [left + share * width, share > 0.5];
    chart.append(draw("path", { class: "level", d: `M${left} ${y(value)}H${left + width}M${px} ${top}V${top + height}` }));
    chart.append(draw("text", { x: px + (onLeft ? -5 : 5), y: top + 10, "text-anchor": onLeft ? "end" : "start" }, text));
  }
  const rule = draw("path", { class: "rule", visibility: "hidden" });
  chart.append(rule);
  let layer = 0;
  const reveal = (px, py) => {
    rule.setAttribute("d", `M${x(layer)} ${top}V${top + height}`);
    rule.setAttribute("visibility", "visible");
    const lines = series.map(({ name, values, lows, highs }) =>
      `${name}: ${show(values[layer])}${lows ? ` (${show(lows[layer])} to ${show(highs[layer])})` : ""}`);
    const text = [heading(layer), ...lines].join("\n");
    showTip(text, px, py);
    return text;
  };
  const hide = () => {
    rule.setAttribute("visibility", "hidden");
    hideTip();
  };
  chart.addEventListener("pointermove", (event) => {
    const box = chart.getBoundingClientRect();
    const away = places.map((share) => Math.abs(event.clientX - box.left - left - share * width));
    layer = away.indexOf(Math.min(...away));
    reveal(event.clientX, event.clientY);
  });
  chart.addEventListener("pointerleave", hide);
  chart.addEventListener("blur", hide);
  chart.addEventListener("keydown", (event) => {
    if (event.key === "Escape") return hide();
    if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return;
    event.preventDefault();
    layer = clamp(layer + (event.key === "ArrowRight" ? 1 : -1), 0, layers - 1);
    const box = chart.getBoundingClientRect();
    $("live").textContent = reveal(box.left + x(layer), box.top + top);
  });
  return make("figure", { class: "map lines", "data-kind": kind }, chart);
}

/** Curves of sets of neurons by their size, on a logarithmic axis. curves: {best, change, random} of {values, lows, highs}. */
function setsChart({ kind, title, sizes, candidates, curves, level, heading }) {
  const share = (size) => (candidates > 1 ? Math.log(size) / Math.log(candidates) : 0.5);
  const series = Object.entries(SETS).map(([order, name]) => ({ style: `sets-${order}`, name, ...curves[order] }));
  const powers = sizes.filter((size) => Number.isInteger(Math.log2(size)));
  const step = Math.ceil(powers.length / 8);
  const figure = lineChart({
    kind,
    title,
    series,
    layers: sizes.length,
    limits: endsOf(series),
    below: `neurons together, of ${candidates.toLocaleString("en")}`,
    heading: (i) => `${sizes[i].toLocaleString("en")} of ${count(candidates, "neuron")}${heading ? `, ${heading}` : ""}`,
    at: sizes.map(share),
    marks: powers.filter((_, i) => i % step === 0).map((size) => [share(size), String(size)]),
    unit: "size",
    level: level && [share(level.size), level.value, level.text],
  });
  const legend = make("ul", { class: "legend" }, ...series.map(({ style, name }) => legendEntry(style, name)));
  figure.append(place(legend, { maxWidth: third() - 10 }));
  return figure;
}

/** Round numbers from low to high, 0 among them. */
function axisMarks(low, high) {
  const rough = (high - low) / 5 || 1;
  const unit = 10 ** Math.floor(Math.log10(rough));
  const step = unit * [1, 2, 5, 10].find((factor) => factor * unit >= rough);
  const marks = [];
  for (let i = Math.ceil(low / step); i * step <= high + 1e-12; i += 1) marks.push(Number((i * step).toPrecision(6)));
  return marks;
}

function headOf(names) {
  return make("thead", {}, make("tr", {}, ...names.map((name) => make("th", { scope: "col" }, name))));
}

function intervalText(ends) {
  return ends ? `${show(ends[0])} to ${show(ends[1])}` : DASH;
}

function fillEffects(group, kinds) {
  const rows = [
    ["probability, clean (high_score)", group.high_score],
    ["probability, corrupted (low_score)", group.low_score],
    ["average total effect (ATE)", group.total_effect],
    ...kinds.map((kind) => [`largest indirect effect of a fact: ${KINDS[kind].name}`, group.kinds[kind].largest_effect]),
  ].filter(([, estimate]) => estimate);
  $("effects").append(headOf(["", "mean", "standard error", "95 % bootstrap", "95 % normal", "facts"]));
  $("effects").append(make("tbody", {}, ...rows.map(([name, estimate]) => make("tr", {},
    ...[name, show(estimate.mean), show(estimate.standard_error), intervalText(estimate.bootstrap), intervalText(estimate.normal), String(estimate.n)]
      .map((text) => make("td", {}, text))))));
}

function fillPeaks(group, kinds, band) {
  const counted = ["kind, token role", "facts", "tokens"];
  const stable = ["replicates that peak there", "95 % of peaks", "mean of facts' largest"];
  $("peaks").append(headOf([...counted, "peak layer", "AIE there", `95 % ${band}`, ...stable]));
  const rows = kinds.flatMap((kind) => Object.entries(ROLES).map(([key, name]) => {
    const role = group.kinds[kind].roles[key];
    const peak = role.peak;
    const at = (values) => (peak.head === undefined ? values[peak.layer] : values[peak.layer]?.[peak.head]);
    const ends = peak && role[`${band}_low`] && at(role[`${band}_low`]) != null ? [at(role[`${band}_low`]), at(role[`${band}_high`])] : null;
    const texts = [
      `${KINDS[kind].name}, ${name}`,
      String(role.facts),
      String(role.tokens),
      peak ? `${peak.layer}${peak.head === undefined ? "" : `, head ${peak.head}`}` : DASH,
      show(peak?.aie),
      intervalText(ends),
      peak?.share == null ? DASH : `${(100 * peak.share).toFixed(0)} %`,
      peak?.layers ? peak.layers.join(" to ") : DASH,
      show(role.largest_effect?.mean),
    ];
    return make("tr", {}, ...texts.map((text) => make("td", {}, text)));
  }));
  $("peaks").append(make("tbody", {}, ...rows));
  $("peaks").closest("details").hidden = !rows.length;
}

// --- Table of facts ------------------------------------------------------------------------------------------------

/** Rows are numbers of facts, 0 to n - 1, in the order and choice shown; only those in sight are elements. */
class FactTable {
  constructor(facts, open) {
    this.facts = facts;
    this.open = open;
    this.total = facts.record.length;
    this.rows = Array.from({ length: this.total }, (_, i) => i);
    this.sort = { key: null, falling: false };
    this.focus = 0; // place among rows that the Tab key reaches
    this.chosen = null;
    this.texts = null;
    this.frame = $("table");
    this.makeHead();
    this.makeFilters();
    this.frame.addEventListener("scroll", () => this.render());
    $("body").addEventListener("click", (event) => {
      const row = event.target.closest("tr[data-row]");
      if (row) this.choose(Number(row.dataset.place));
    });
    $("body").addEventListener("keydown", (event) => this.onKey(event));
    new ResizeObserver(() => this.render()).observe(this.frame);
    this.update();
  }

  makeHead() {
    const over = [];
    for (const { over: text = "" } of COLUMNS) {
      if (over.length && over.at(-1).text === text) over.at(-1).span += 1;
      else over.push({ text, span: 1 });
    }
    this.heads = COLUMNS.map((column) => {
      const button = make("button", { type: "button", "data-key": column.key }, column.name);
      button.addEventListener("click", () => this.sortBy(column));
      return make("th", { scope: "col", class: column.number ? "number" : null }, button);
    });
    $("head").append(
      make("tr", {}, ...over.map(({ text, span }) => make("th", { class: "over", colspan: span }, text))),
      make("tr", {}, ...this.heads),
    );
    $("head").before(make("colgroup", {}, ...COLUMNS.map(({ width }) => make("col", { class: width }))));
  }

  makeFilters() {
    const tally = (values) => {
      const numbers = new Map();
      for (const value of values) numbers.set(value, (numbers.get(value) ?? 0) + 1);
      return [...numbers].sort(([a], [b]) => String(a ?? "").localeCompare(String(b ?? "")));
    };
    const option = (value, text) => make("option", { value }, text);
    const relations = tally(this.facts.relation);
    $("filter-relation").append(
      option("", "all"),
      ...relations.map(([name, n]) => option(JSON.stringify(name), `${name ?? "(none)"} (${n})`)),
    );
    const states = tally(this.facts.status.map((status, i) => JSON.stringify([status, this.facts.cause[i]])));
    const byStatus = tally(this.facts.status);
    $("filter-status").append(option("", "all"));
    for (const [status, n] of byStatus) {
      $("filter-status").append(option(JSON.stringify([status]), `${status} (${n})`));
      const causes = states.map(([text, number]) => [...JSON.parse(text), number]).filter(([of, cause]) => of === status && cause);
      if (causes.length < 2) continue;
      for (const [, cause, number] of causes) {
        $("filter-status").append(option(JSON.stringify([status, cause]), `  ${cause} (${number})`));
      }
    }
    for (const id of ["filter-text", "filter-relation", "filter-status"]) $(id).addEventListener("input", () => this.update());
  }

  text(i) {
    const fields = ["id", "relation", "subject", "prompt", "object", "answer", "cause", "reason"];
    this.texts ??= this.facts.record.map((_, n) => fields.map((name) => this.facts[name][n] ?? "").join("\n").normalize("NFKC").toLowerCase());
    return this.texts[i];
  }

  /** Filters and sorts again. */
  update() {
    const words = $("filter-text").value.normalize("NFKC").toLowerCase().split(/\s+/).filter(Boolean);
    const relation = $("filter-relation").value && [JSON.parse($("filter-relation").value)];
    const [status, cause] = JSON.parse($("filter-status").value || "[]");
    const { facts } = this;
    this.rows = [];
    for (let i = 0; i < this.total; i += 1) {
      if (relation && facts.relation[i] !== relation[0]) continue;
      if (status && (facts.status[i] !== status || (cause && facts.cause[i] !== cause))) continue;
      if (words.length && !words.every((word) => this.text(i).includes(word))) continue;
      this.rows.push(i);
    }
    if (this.sort.key) {
      const values = facts[this.sort.key];
      const sign = this.sort.falling ? -1 : 1;
      const { compare } = new Intl.Collator("en", { numeric: true });
      this.rows.sort((a, b) => {
        const [x, y] = [values[a], values[b]];
        if (x === null || y === null) return (x === null) - (y === null) || a - b;
        return sign * (typeof x === "number" ? x - y : compare(x, y)) || a - b;
      });
    }
    this.focus = 0;
    this.frame.scrollTop = 0;
    const some = this.rows.length < this.total ? `${this.rows.length.toLocaleString("en")} of ` : "";
    $("shown").textContent = some + count(this.total, "fact");
    this.render();
  }

  sortBy({ key, number = false, rising = false }) {
    const first = number && !rising; // the largest first
    this.sort = { key, falling: this.sort.key === key ? !this.sort.falling : first };
    this.heads.forEach((head, i) => {
      const mine = COLUMNS[i].key === key;
      if (mine) head.setAttribute("aria-sort", this.sort.falling ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
      head.firstChild.textContent = COLUMNS[i].name + (mine ? (this.sort.falling ? " ▼" : " ▲") : "");
    });
    this.update();
  }

  render() {
    const first = Math.max(0, Math.floor(this.frame.scrollTop / ROW) - 8);
    const last = Math.min(this.rows.length, first + Math.ceil(this.frame.clientHeight / ROW) + 16);
    const held = document.activeElement?.closest?.("tr[data-row]");
    const space = (rows) => {
      const cell = place(make("td", { colspan: COLUMNS.length }), { height: rows * ROW });
      return make("tr", { class: "space", "aria-hidden": "true" }, cell);
    };
    const rows = [];
    for (let at = first; at < last; at += 1) rows.push(this.row(at));
    if (!this.rows.length) rows.push(make("tr", {}, make("td", { colspan: COLUMNS.length }, "no fact fits")));
    $("body").replaceChildren(space(first), ...rows, space(this.rows.length - last));
    $("body").parentNode.setAttribute("aria-rowcount", this.rows.length + 2);
    if (held) $("body").querySelector(`tr[data-place="${this.focus}"]`)?.focus({ preventScroll: true });
  }

  row(at) {
    const i = this.rows[at];
    const textOf = ({ key, number, show: text = show }) => {
      const value = this.facts[key][i];
      if (value === null) return DASH;
      if (key === "status" && this.facts.cause[i]) return `${value}: ${this.facts.cause[i]}`;
      return number ? text(value) : value;
    };
    const cells = COLUMNS.map((column) => {
      const { number } = column;
      const shown = textOf(column);
      return make("td", { class: number ? "number" : null, title: !number && shown.length > 12 ? shown : null }, shown);
    });
    const attributes = { "data-row": i, "data-place": at, tabindex: at === this.focus ? 0 : -1, "aria-rowindex": at + 3, "aria-selected": i === this.chosen };
    return make("tr", attributes, ...cells);
  }

  onKey(event) {
    const page = Math.max(1, Math.floor(this.frame.clientHeight / ROW) - 3);
    const moves = { ArrowUp: -1, ArrowDown: 1, PageUp: -page, PageDown: page, Home: -this.total, End: this.total };
    const row = event.target.closest("tr[data-row]");
    if (!row || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      this.choose(Number(row.dataset.place));
    } else if (event.key in moves) {
      event.preventDefault();
      this.moveTo(clamp(Number(row.dataset.place) + moves[event.key], 0, this.rows.length - 1));
    }
  }

  /** Brings a row into sight and focuses it. */
  moveTo(at) {
    this.focus = at;
    this.bringIntoSight(at);
    this.render();
    $("body").querySelector(`tr[data-place="${at}"]`)?.focus({ preventScroll: true });
  }

  bringIntoSight(at) {
    const room = this.frame.clientHeight - $("head").offsetHeight - ROW;
    this.frame.scrollTop = clamp(this.frame.scrollTop, at * ROW - room, at * ROW);
  }

  choose(at) {
    this.focus = at;
    this.chosen = this.rows[at];
    this.render();
    this.open(this.chosen);
  }

  /** The next or previous of the rows shown. */
  step(by) {
    const at = this.rows.indexOf(this.chosen);
    const next = clamp(at === -1 ? 0 : at + by, 0, this.rows.length - 1);
    if (!this.rows.length) return;
    this.bringIntoSight(next);
    this.choose(next);
  }
}

// --- One fact ------------------------------------------------------------------------------------------------------

class FactView {
  constructor(index) {
    this.facts = index.facts;
    this.layers = index.model?.layers;
    this.model = index.model?.name ?? "";
    this.asked = 0;
    const redraw = () => this.fact && this.drawMaps();
    for (const id of ["one-scale", "direction"]) $(id).addEventListener("change", redraw);
    $("directions").hidden = index.run?.direction !== "both";
    onResize(redraw);
    $("fact").hidden = true;
  }

  async open(i) {
    const ticket = ++this.asked;
    const block = this.facts.block[i];
    const fact = block && (await unpackFact(block, this.layers));
    if (ticket !== this.asked) return;
    this.fact = fact;
    this.total = this.facts.effect[i] ?? 0;
    this.high = this.facts.high[i] ?? 0;
    const of = (name) => this.facts[name][i];
    const description = make("dl");
    const add = (name, value) => {
      if (value === null || value === undefined || value === "") return;
      description.append(make("div", {}, make("dt", {}, name), make("dd", {}, String(value))));
    };
    const known = { id: of("id"), relation: of("relation"), object: of("object") };
    for (const [name, value] of Object.entries(known)) add(name, value);
    add("status", of("cause") ? `${of("status")}: ${CAUSES[of("cause")] ?? of("cause")}` : of("status"));
    add("reason", of("reason"));
    if (of("high") !== null) add("probability of the answer, clean", show(of("high")));
    const error = fact?.low_standard_error == null ? "" : ` (standard error ${show(fact.low_standard_error)})`;
    if (of("low") !== null) add("with the subject corrupted", show(of("low")) + error);
    add("corrupted by the tokens of", fact?.counter);
    if (of("effect") !== null) add("total effect", show(of("effect")));
    if (fact && fact.prediction.trim() !== of("answer")) add("the model's own answer", `${fact.prediction} (${show(fact.prediction_score)})`);
    if (of("status") === "traced" && !fact) add("grids", "left out of this page (--limit)");
    this.maps = make("div", { class: "maps" });
    this.neurons = make("div");
    $("fact-title").textContent = `Record ${of("record")}`;
    $("fact-body").replaceChildren(this.sentence(of, fact), description, this.maps, this.neurons);
    $("fact").hidden = false;
    $("fact").dataset.record = of("record");
    if (fact) this.drawMaps();
    try {
      history.replaceState(null, "", `#${of("record")}`);
    } catch {
      // some browsers forbid it for files; the page works without
    }
  }

  /** The prompt with its subject in bold, and the answer. */
  sentence(of, fact) {
    const [prompt, subject] = [of("prompt") ?? "", of("subject") ?? ""];
    const at = of("subject_at") ?? (subject ? prompt.indexOf(subject) : -1);
    const parts = at < 0 ? [prompt] : [prompt.slice(0, at), make("b", {}, subject), prompt.slice(at + subject.length)];
    return make("p", { class: "prompt" }, "“", ...parts, "”", ...(of("answer") === null ? [] : [" → “", of("answer"), "”"]));
  }

  drawMaps() {
    const { fact, layers } = this;
    const both = !$("directions").hidden;
    if (both) [noising, interaction] = ["noising", "interaction"].map((name) => $("direction").value === name);
    const grids = (both && fact.others[$("direction").value]) || fact.grids;
    const size = interaction ? Math.abs : Number;
    const largest = Object.fromEntries(Object.entries(grids).map(([kind, { effects }]) => [kind, effects.reduce((a, b) => (size(b) > size(a) ? b : a))]));
    const common = Math.max(...Object.values(largest).map(size));
    const low = noising || interaction ? 0 : fact.low_score;
    const what = interaction ? "interaction" : noising ? "probability lost" : "probability";
    const maps = Object.entries(grids).map(([kind, grid]) => {
      const top = Math.max($("one-scale").checked ? common : size(largest[kind]), 0.01 * low, 1e-9);
      const best = grid.effects.indexOf(largest[kind]);
      return heatMap({
        title: titleOf(kind),
        kind,
        labels: grid.positions.map((t) => ({ text: fact.tokens[t], star: fact.corrupted.includes(t) })),
        values: grid.effects.map((effect) => low + effect),
        layers,
        ramp: interaction ? "interaction" : kind,
        range: interaction ? [-top, top] : [low, low + top],
        below: below(kind, grid.window, this.model.split("/").at(-1)),
        barLabel: `${what}${noising || interaction ? "" : " of the answer"}`,
        describe: this.describer(kind, grid),
        summary: `Largest ${what} ${show(low + largest[kind])}: token ${fact.tokens[grid.positions[Math.floor(best / layers)]]}, layer ${best % layers}.`,
      });
    });
    this.maps.replaceChildren(...maps);
    if (both) noising = interaction = false; // of what else the page shows
    if (fact.knockout) {
      const { window, groups } = fact.knockout;
      const series = cutSeries(groups, ({ tokens }) => count(tokens, "token"), () => ({ lows: null, highs: null }));
      if (series.length) this.maps.append(knockoutChart(series, window, layers));
    }
    this.neurons.replaceChildren();
    if (fact.neurons) this.drawNeurons(fact.neurons);
  }

  token(position) {
    return `“${this.fact.tokens[position]}${this.fact.corrupted.includes(position) ? "*" : ""}”`;
  }

  /** Neurons that were run alone, sets of them, and a table. */
  drawNeurons({ effects, sets, ranked_by: ranking, candidates }) {
    const positions = [...new Set([...sets.map(({ position }) => position), ...effects.map(({ position }) => position)])].sort((a, b) => a - b);
    for (const position of positions) {
      const mine = effects.filter((effect) => effect.position === position);
      if (mine.length) this.maps.append(this.dotChart(mine, position));
      const set = sets.find((each) => each.position === position);
      if (!set) continue;
      const curve = ({ effects: values, errors }) => {
        const whole = !errors.includes(null);
        return { values, lows: whole ? values.map((value, i) => value - errors[i]) : null, highs: whole ? values.map((value, i) => value + errors[i]) : null };
      };
      this.maps.append(setsChart({
        kind: "sets",
        title: `Sets of neurons ${done()} at ${this.token(position)}`,
        sizes: set.sizes,
        candidates: set.candidates,
        curves: { best: curve(set.best), change: curve(set.change), random: curve(set.random) },
        level: set.half && { size: set.half, value: set.best.effects.at(-1) / 2, text: `half of all: ${set.half.toLocaleString("en")}` },
        heading: "effect ± one standard error",
      }));
    }
    this.neurons.append(this.neuronTable(effects, positions.length > 1));
    const chosen = ranking === "given" ? "" : `; the largest of ${candidates.toLocaleString("en")} by estimate (${ranking})`;
    const told = sets.map(({ position, half, candidates: all }) => half === null
      ? `All neurons together at ${this.token(position)} ${noising ? "take nothing away" : "bring nothing back"}.`
      : `${half.toLocaleString("en")} of ${count(all, "neuron")} at ${this.token(position)} ${noising ? "take away" : "bring back"} half of what all do.`);
    this.neurons.append(make("p", { class: "note" }, [`Effects on the probability, one neuron at a time${chosen}.`, ...told].join(" ")));
  }

  /** Effects of single neurons at their layers. */
  dotChart(effects, position) {
    const { layers } = this;
    const [left, top, width, height] = [46, 26, third() - 72, 190];
    const ends = effects.flatMap(({ effect, error }) => [effect - (error ?? 0), effect + (error ?? 0)]);
    const [low, high] = [Math.min(0, ...ends), Math.max(0, ...ends)];
    const y = (value) => top + height * (1 - (value - low) / (high - low || 1));
    const title = `Single neurons ${done()} at ${this.token(position)}`;
    const chart = draw("svg", { class: "chart", width: left + width + 16, height: top + height + 44, role: "img",
      "aria-label": `${title}. The table below has the numbers.` });
    chart.append(draw("text", { x: left, y: 14, class: "title" }, title));
    for (const value of axisMarks(low, high)) {
      chart.append(draw("path", { class: value === 0 ? "axis" : "zero", d: `M${left} ${y(value)}H${left + width}` }));
      chart.append(draw("text", { x: left - 6, y: y(value) + 4, "text-anchor": "end" }, String(value).replace("-", "−")));
    }
    const x = (layer) => left + ((layer + 0.5) * width) / layers;
    for (const layer of ticksOf(layers, third() < 420 ? 9 : 13)) {
      chart.append(draw("text", { x: x(layer), y: top + height + 16, "text-anchor": "middle" }, String(layer)));
    }
    chart.append(draw("text", { x: left + width / 2, y: top + height + 34, "text-anchor": "middle" }, below("state", 1, this.model.split("/").at(-1))));
    const [seen, of] = [new Map(), new Map()];
    for (const { layer } of effects) of.set(layer, (of.get(layer) ?? 0) + 1);
    for (const neuron of effects) {
      const rank = seen.get(neuron.layer) ?? 0;
      seen.set(neuron.layer, rank + 1);
      const px = x(neuron.layer + 0.7 * ((rank + 0.5) / of.get(neuron.layer) - 0.5));
      if (neuron.error !== null) chart.append(draw("path", { class: "error", d: `M${px} ${y(neuron.effect - neuron.error)}V${y(neuron.effect + neuron.error)}` }));
      const dot = draw("circle", { class: "dot", cx: px, cy: y(neuron.effect), r: 3.5 });
      dot.addEventListener("pointerenter", (event) => showTip(this.describeNeuron(neuron), event.clientX, event.clientY));
      dot.addEventListener("pointerleave", hideTip);
      chart.append(dot);
    }
    return make("figure", { class: "map lines", "data-kind": "neurons" }, chart);
  }

  describeNeuron({ layer, neuron, effect, error, promotes }) {
    return [`neuron ${layer}:${neuron}`, `${noising ? "probability lost" : "indirect effect"} ${show(effect)}`, `standard error ${show(error)}`,
      ...(promotes.length ? [`promotes ${promotes.map((token) => `“${token}”`).join(" ")}`] : [])].join("\n");
  }

  neuronTable(effects, several) {
    const names = ["layer:neuron", ...(several ? ["at"] : []), "effect", "standard error", "estimate", "clean", "corrupted", "size of row", "promotes", "suppresses"];
    const words = (tokens) => tokens.slice(0, 3).map((token) => `“${token}”`).join(" ") || DASH;
    const rows = effects.map((each) => [`${each.layer}:${each.neuron}`, ...(several ? [this.token(each.position)] : []), show(each.effect), show(each.error),
      show(each.estimate), show(each.clean), show(each.corrupted), show(each.norm), words(each.promotes), words(each.suppresses)]);
    return make("div", { class: "scroll" }, make("table", { class: "numbers" }, headOf(names),
      make("tbody", {}, ...rows.map((texts) => make("tr", {}, ...texts.map((text) => make("td", {}, text)))))));
  }

  /** What tells of a cell, in the direction that is shown while it is drawn. */
  describer(kind, grid) {
    const { fact, layers, total, high } = this;
    const [begin, end] = fact.subject_range;
    const [lost, apart] = [noising, interaction];
    const layerTexts = Array.from({ length: layers }, (_, layer) => windowText(kind, grid.window, layer, layers));
    return (row, layer) => {
      const token = grid.positions[row];
      const cell = row * layers + layer;
      const effect = grid.effects[cell];
      const share = total > 0 ? ` (${Math.round((100 * effect) / total)} % of the total effect)`.replace("-", "−") : "";
      return [
        `“${fact.tokens[token]}”, token ${token}${begin <= token && token < end ? ", subject" : ""}`,
        layerTexts[layer],
        ...(grid.heads ? [`head ${grid.heads[cell]}, the strongest here`] : []),
        ...(apart ? [] : [`probability ${show(lost ? high - effect : fact.low_score + effect)}`]),
        `${apart ? "interaction" : lost ? "probability lost" : "indirect effect"} ${show(effect)}${share}`,
        `standard error ${show(grid.errors[cell])}`,
      ].join("\n");
    };
  }
}

// --- Settings ------------------------------------------------------------------------------------------------------

function fillSettings(index) {
  const header = index.headers[0] ?? {};
  const { model, run } = index;
  const add = (name, value, mono = false) => {
    if (value === null || value === undefined || value === "") return;
    $("settings").append(make("dt", {}, name), make("dd", { class: mono ? "mono" : null }, typeof value === "object" ? JSON.stringify(value) : String(value)));
  };
  if (model) {
    const sizes = `${model.layers} layers, width ${model.width}, ${model.heads} heads`;
    add("model", `${model.name} (${model.architecture}, ${sizes}, ${Number(model.parameters).toLocaleString("en")} parameters)`);
    add("weights, SHA-256", model.weights_sha256, true);
    for (const edit of Array.isArray(model.edits) ? model.edits : []) {
      add("edited by", `${edit.method}, layer ${[edit.layers].flat().join(", ")}, ${count(Number(edit.requests), "fact")}`);
      add("its SHA-256", edit.sha256, true);
    }
  }
  for (const [name, value] of Object.entries(run ?? {})) {
    if (name === "noise" && value) add("noise", `${value.rule}${value.sigma === null ? "" : `: sigma ${value.sigma}`}${value.replace ? ", in place of the embedding" : ""}`);
    else if (name === "corruption" && value) add("corruption", [value.method, value.text && `text ${value.text.name} of ${count(value.text.tokens, "token")}`].filter(Boolean).join(", "));
    else add(name, value);
  }
  for (const name of ["kinds", "window", "target", "all", "special_tokens", "only"]) {
    const value = header[name];
    add(name.replace("_", " "), Array.isArray(value) ? value.join(", ") : value);
  }
  for (const file of header.facts?.files ?? []) {
    add("facts file", file.name);
    add("its SHA-256", file.sha256, true);
  }
  if (header.facts) {
    const chosen = Object.entries(header.facts.selection ?? {})
      .filter(([, value]) => value !== null)
      .map(([name, value]) => `${name.replace("_", " ")} ${value}`);
    add("records", `${header.facts.selected} chosen of ${header.facts.records}${chosen.length ? ` (${chosen.join(", ")})` : ""}`);
  }
  const shards = index.headers.filter(({ shard }) => shard).map(({ shard }) => `${shard.index} of ${shard.count}`);
  add("shards", shards.join(", "));
  add("rometrace", header.rometrace ?? index.summary?.rometrace);
  $("files").append(headOf(["results file", "records", "SHA-256"]));
  $("files").append(make("tbody", {}, ...index.files.map(({ name, records, sha256 }) =>
    make("tr", {}, make("td", {}, name), make("td", {}, String(records)), make("td", { class: "mono" }, sha256)))));
}

function fillLead({ counts, facts, without_grids: left, remarks, caveat }) {
  const notes = [...remarks, ...(noising ? ["noising: corrupted values in the clean run; effects are the probability lost"] : [])];
  $("remarks").textContent = notes.join("; ");
  $("remarks").hidden = !notes.length;
  $("caveat").textContent = caveat;
  const sums = Object.entries(counts).map(([status, causes]) => [status, Object.values(causes).reduce((a, b) => a + b, 0)]);
  const told = sums.map(([status, n]) => `${n.toLocaleString("en")} ${status}`).join(", ");
  $("lead").textContent = `${count(facts.record.length, "fact")}: ${told}${left ? ` (grids of ${left} left out)` : ""}`;
  for (const status of ["skipped", "failed"]) {
    for (const [cause, n] of Object.entries(counts[status]).sort((a, b) => b[1] - a[1])) {
      $("causes").append(make("li", {}, `${n.toLocaleString("en")} ${status}: ${CAUSES[cause] ?? cause}`));
    }
  }
}

// --- The page ------------------------------------------------------------------------------------------------------

function openFromAddress(table) {
  const record = Number(location.hash.slice(1));
  const i = table.facts.record.indexOf(record);
  if (location.hash.length < 2 || i < 0) return;
  const at = table.rows.indexOf(i);
  if (at >= 0) {
    table.bringIntoSight(at);
    table.choose(at);
  }
}

async function start() {
  if (typeof DecompressionStream === "undefined") throw new Error("this browser is too old for the page; Chrome 80, Firefox 113 or Safari 16.4 can show it");
  const index = await unpackIndex();
  noising = index.run?.direction === "noising";
  approximate = index.run?.approximate === true;
  fillLead(index);
  $("main").hidden = false;
  startAverages(index.summary);
  fillSettings(index);
  const view = new FactView(index);
  const table = new FactTable(index.facts, async (i) => {
    await view.open(i);
    $("fact").scrollIntoView({ block: "nearest" });
  });
  $("previous").addEventListener("click", () => table.step(-1));
  $("next").addEventListener("click", () => table.step(1));
  addEventListener("hashchange", () => openFromAddress(table));
  openFromAddress(table);
  $("message").hidden = true;
  document.documentElement.dataset.ready = "true";
}

start().catch((error) => {
  $("message").textContent = `The page cannot be shown: ${error.message}`;
  $("message").classList.add("error");
  $("message").hidden = false;
});
