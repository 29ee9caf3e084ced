// The page: which view is shown, the key where the server wants one, light and dark.
import { get, needsKey, setKey } from "./api.js";
import { Home } from "./home.js";
import { models } from "./options.js";
import { Reader } from "./reader.js";
import { RecordingBar } from "./recording.js";
import { Dialog, html, notice, render, tell, useEffect, useState, useStore } from "./ui.js";

const THEME = "sotto.theme";
const THEMES = ["auto", "light", "dark"];

function place() {
  const [path, query] = location.hash.slice(1).split("?");
  const found = /^\/r\/(rec_[0-9a-f]{32})$/.exec(path);
  return { recording: found && found[1], time: Number(new URLSearchParams(query).get("t")) || 0 };
}

function Theme() {
  const [theme, setTheme] = useState(localStorage.getItem(THEME) || "auto");
  useEffect(() => {
    document.documentElement.dataset.theme = theme;
    localStorage.setItem(THEME, theme);
  }, [theme]);
  const next = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
  return html`<button type="button" class="quiet" onClick=${() => setTheme(next)} title="Light, dark, or as the system">
    ${{ auto: "Auto", light: "Light", dark: "Dark" }[theme]}</button>`;
}

function AskKey({ onKey }) {
  const [key, set] = useState("");
  const save = (event) => {
    event.preventDefault();
    setKey(key.trim());
    onKey();
  };
  return html`<${Dialog} title="This server wants a key" onClose=${() => {}}><form onSubmit=${save}>
    <label>API key<input type="password" autocomplete="off" value=${key} onInput=${(e) => set(e.target.value)} /></label>
    <p class="quiet">It is kept in this tab until you close it.</p>
    <p class="buttons"><button class="main" disabled=${!key.trim()}>Go on</button></p></form><//>`;
}

async function loadModels() {
  const openai = /^(whisper-1|gpt-)/; // names of the same models, for programs
  const { data } = await get("/v1/models");
  const own = data.map((model) => model.id).filter((name) => !openai.test(name));
  models.set(own.length ? own : data.map((model) => model.id));
}

function App() {
  const [shown, setShown] = useState(place());
  const [round, setRound] = useState(0);
  const asks = useStore(needsKey);
  const message = useStore(notice);
  useEffect(() => {
    const moved = () => setShown(place());
    addEventListener("hashchange", moved);
    return () => removeEventListener("hashchange", moved);
  }, []);
  useEffect(() => {
    loadModels().catch((error) => error.status === 401 || tell(`The server cannot be reached: ${error.message}`));
  }, [round]);
  useEffect(() => {
    if (!shown.recording) document.title = "Sotto";
  }, [shown.recording]);
  return html`
    <header class="top"><a class="brand" href="#/"><img src=${new URL("icon.svg", import.meta.url).pathname} alt="" width="26" height="26" />
      <h1>Sotto</h1></a><${Theme} /></header>
    <${RecordingBar} />
    ${asks ? html`<${AskKey} onKey=${() => setRound(round + 1)} /><main></main>`
      : shown.recording ? html`<${Reader} key=${shown.recording + round} id=${shown.recording} time=${shown.time} />`
      : html`<${Home} key=${round} />`}
    <div class="toast" role="status" aria-live="polite">${message && html`<p>${message}</p>`}</div>`;
}

render(html`<${App} />`, document.getElementById("app"));
