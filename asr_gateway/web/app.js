// The page: buttons start a session, its messages become words and meters.

import { Microphone, Player, SAMPLE_RATE } from "./audio.js";
import { Session } from "./session.js";

const PAUSES = ["0.5 s", "1 s", "2 s", "3 s"];
const MOST_WORDS = 2000;
const STATES = {
  idle: "not connected",
  connecting: "connecting",
  live: "listening",
  finishing: "waiting for the last words",
  closed: "done",
  failed: "failed",
};
const LOOKS = { live: "live", connecting: "waiting", finishing: "waiting", failed: "failed" };

const $ = (id) => document.getElementById(id);
let run = null; // {session, source}: what goes on now
let shown = { words: 0, samples: 0 };

// --- one run ---------------------------------------------------------------------------------------------

async function start(source, spoken = "") {
  stop();
  clear(spoken);
  const mine = { source };
  run = mine;
  mine.session = new Session(sessionUrl(), {
    state: (name) => { if (run === mine) showState(name, source); },
    message: (fields) => { if (run === mine) showMessage(fields); },
    failed: (text) => { source.stop(); if (run === mine) showError(text); },
  });
  try {
    await source.start((pieces) => {
      mine.session.send(pieces);
      if (run === mine) showSent(pieces);
    });
  } catch (error) {
    mine.session.fail(`no audio: ${error.message}`);
  }
}

function play(bytes, spoken) {
  const player = new Player(bytes, () => run?.source === player && run.session.end());
  return start(player, spoken);
}

// The user has said enough: the words that are under way still come. Before Ready none are.
function finish() {
  run?.source.stop();
  if (run?.session.state === "connecting") run.session.close();
  run?.session.end();
}

// What was heard until then is still of interest.
function microphoneLost() {
  run.source.stop();
  run.session.end();
  showError("no more audio: the microphone was unplugged, is no longer allowed or is in use elsewhere");
}

// Another run begins: nothing of this one is of interest any more.
function stop() {
  run?.source.stop();
  run?.session.close();
  run = null;
}

function sessionUrl() {
  // Beside the page, wherever a proxy has put the two.
  const url = new URL(`.${$("route").value || "/api/asr-streaming"}`, location.href);
  url.protocol = location.protocol === "https:" ? "wss:" : "ws:";
  url.searchParams.set("auth_id", $("key").value);
  return url;
}

// --- what is seen ----------------------------------------------------------------------------------------

function clear(spoken) {
  shown = { words: 0, samples: 0 };
  $("words").replaceChildren();
  $("error").hidden = true;
  $("placeholder").hidden = false;
  $("spoken").hidden = !spoken;
  $("spoken").textContent = spoken ? `What was said: ${spoken}` : "";
  $("lag").textContent = "–";
  $("count").textContent = "0";
  $("audio").textContent = "0.0 s";
  showPauses([]);
}

function showState(name, source) {
  $("state").textContent = name === "live" && source instanceof Player ? "playing" : STATES[name];
  $("state").dataset.state = LOOKS[name] ?? "idle";
  const busy = name === "connecting" || name === "live";
  const wasFocused = document.activeElement === $(busy ? "microphone" : "stop");
  $("stop").hidden = !busy;
  $("microphone").hidden = busy;
  if (wasFocused) $(busy ? "stop" : "microphone").focus();
}

function showError(text) {
  $("error").textContent = text;
  $("error").hidden = false;
}

function showSent(pieces) {
  for (const piece of pieces) shown.samples += piece.length;
  $("audio").textContent = `${(shown.samples / SAMPLE_RATE).toFixed(1)} s`;
}

function showMessage(fields) {
  switch (fields.type) {
    case "Step":
      $("lag").textContent = `${(fields.buffered_pcm / SAMPLE_RATE).toFixed(2)} s`;
      showPauses(fields.prs);
      break;
    case "Word":
      showWord(fields.text, fields.start_time);
      break;
    case "EndWord": {
      const last = $("words").lastElementChild;
      if (last) last.title += ` to ${fields.stop_time.toFixed(2)} s`;
      break;
    }
  }
}

function showWord(text, startTime) {
  const word = document.createElement("span");
  const time = document.createElement("small");
  word.className = "word";
  word.title = `${startTime.toFixed(2)} s`;
  time.textContent = startTime.toFixed(1);
  time.ariaHidden = "true";
  word.append(text, " ", time);
  $("words").append(word, " ");
  while ($("words").childElementCount > MOST_WORDS) $("words").firstChild.remove();
  shown.words += 1;
  $("count").textContent = String(shown.words);
  $("placeholder").hidden = true;
  word.scrollIntoView({ block: "nearest" });
}

function showPauses(probabilities) {
  const box = $("pauses");
  while (box.querySelectorAll(".pause").length < probabilities.length) box.append(pauseBar(box));
  box.hidden = box.querySelectorAll(".pause").length === 0;
  box.querySelectorAll(".bar").forEach((bar, index) => {
    const percent = Math.round(100 * (probabilities[index] ?? 0));
    bar.firstElementChild.style.width = `${percent}%`;
    bar.ariaValueNow = String(percent);
  });
}

function pauseBar(box) {
  const index = box.querySelectorAll(".pause").length;
  const row = document.createElement("div");
  row.className = "pause";
  row.innerHTML = '<span></span><div class="bar" role="meter" aria-valuemin="0" aria-valuemax="100"><span></span></div>';
  row.firstElementChild.textContent = PAUSES[index] ?? `head ${index}`;
  row.lastElementChild.ariaLabel = `probability of a pause of ${row.textContent}, in percent`;
  return row;
}

// --- what the user does ----------------------------------------------------------------------------------

$("microphone").onclick = () => start(new Microphone(microphoneLost));
$("stop").onclick = finish;
$("file").onchange = ({ target }) => {
  if (target.files[0]) openFile(target.files[0]);
  target.value = "";
};

function openFile(file) {
  return play(file.arrayBuffer());
}

document.ondragover = (event) => {
  event.preventDefault();
  $("drop").classList.add("dropping");
};
document.ondragleave = (event) => { if (!event.relatedTarget) $("drop").classList.remove("dropping"); };
document.ondrop = (event) => {
  event.preventDefault();
  $("drop").classList.remove("dropping");
  if (event.dataTransfer.files[0]) openFile(event.dataTransfer.files[0]);
};

// The demo's static folder holds recordings with their words and what to know of the model; other services have
// neither, and that is no error.
async function offerSamples() {
  const answer = await fetch("samples.json");
  if (!answer.ok) return;
  for (const [index, { file, text }] of (await answer.json()).entries()) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = `Sample ${index + 1}`;
    button.title = text;
    button.onclick = () => play(download(file), text);
    $("samples").append(button);
  }
  $("samples").hidden = false;
}

async function tellAbout() {
  const answer = await fetch("about.json");
  if (!answer.ok) return;
  const { text, words } = await answer.json();
  $("about-text").textContent = text;
  $("about-words").textContent = words.join(", ");
  $("about").hidden = false;
}

async function download(file) {
  const answer = await fetch(file).catch(() => null);
  if (!answer?.ok) throw new Error(`${file} could not be fetched: is the service running?`);
  return answer.arrayBuffer();
}

async function offerModels() {
  const modules = await (await fetch("api/modules_info")).json();
  for (const { path, lm } of modules) $("route").add(new Option(`${path} (${lm})`, path));
  $("route-label").hidden = modules.length < 2;
}

$("key").value = new URLSearchParams(location.search).get("auth_id") ?? "public_token";
offerSamples().catch(() => {});
tellAbout().catch(() => {});
offerModels().catch(() => {});
