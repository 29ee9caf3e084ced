// The first view: files in, what is under way, and the library.
import { get, remove, post, patch } from "./api.js";
import { Options } from "./options.js";
import { Row, UploadRow } from "./list.js";
import { Kept, RecordButton, RecorderMessage } from "./recording.js";
import { ChoiceBar, ChoiceButton, choiceOf, useChoice } from "./several.js";
import { addFiles, filesOf, onTaken, uploads } from "./uploads.js";
import { Icon, html, tell, useCallback, useEffect, useRef, useState, useStore } from "./ui.js";
import { clock } from "./time.js";

const EVERY = 1000; // milliseconds between two looks at what is under way

async function take(files) {
  const refused = addFiles(files);
  if (refused.length) tell(`Not taken, as ${refused.length === 1 ? "it is" : "they are"} no sound: ${refused.slice(0, 3).join(", ")}${refused.length > 3 ? " …" : ""}`);
}

function DropZone() {
  const [over, setOver] = useState(false);
  const files = useRef(null);
  const folder = useRef(null);
  useEffect(() => {
    const drag = (event) => {
      if (![...event.dataTransfer.types].includes("Files")) return;
      event.preventDefault();
      setOver(event.type === "dragover");
      if (event.type === "drop") filesOf(event.dataTransfer).then(take);
    };
    const leave = (event) => event.relatedTarget || setOver(false);
    const paste = (event) => event.clipboardData.files.length && filesOf(event.clipboardData).then(take);
    const kinds = [["dragover", drag], ["drop", drag], ["dragleave", leave], ["paste", paste]];
    for (const [kind, listener] of kinds) addEventListener(kind, listener);
    return () => kinds.forEach(([kind, listener]) => removeEventListener(kind, listener));
  }, []);
  const chosen = (event) => {
    take([...event.target.files].map((file) => ({ file, folder: (file.webkitRelativePath || "").split("/").slice(-2, -1)[0] || "" })));
    event.target.value = "";
  };
  return html`<section class=${`drop ${over ? "over" : ""}`} aria-label="New recordings">
    <p class="lead">Drop recordings here</p>
    <p class="buttons">
      <button type="button" class="main" onClick=${() => files.current.click()}>Choose files</button>
      <button type="button" onClick=${() => folder.current.click()}>Choose a folder</button>
      <${RecordButton} />
    </p>
    <${RecorderMessage} />
    <input ref=${files} type="file" multiple hidden accept="audio/*,video/*,.amr,.opus,.mkv,.wma" onChange=${chosen} aria-label="Files" />
    <input ref=${folder} type="file" webkitdirectory hidden onChange=${chosen} aria-label="Folder" />
    <${Options} />
  </section>`;
}

function Hits({ query, hits }) {
  if (!hits) return html`<p class="quiet">Searching …</p>`;
  if (!hits.length) return html`<p class="quiet">Nobody says this in any recording.</p>`;
  const terms = query.replace(/"/g, " ").toLowerCase().split(/\s+/).filter(Boolean);
  return html`<ol class="hits">${hits.map((hit) => html`<li key=${hit.recording + hit.uid}>
    <a href=${`#/r/${hit.recording}?t=${hit.start}`}><span class="where">${hit.name} <time>${clock(hit.start)}</time></span>
    <span dir="auto">${marked(hit.text, terms)}</span></a></li>`)}</ol>`;
}

/** A text as pieces, in which what was searched for is marked. */
function marked(text, terms) {
  if (!terms.length) return text;
  const pattern = new RegExp(`(${terms.map((term) => term.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")).join("|")})`, "giu");
  return text.split(pattern).map((piece, i) => (i % 2 ? html`<mark>${piece}</mark>` : piece));
}

function useLibrary(tag) {
  const [state, setState] = useState(null);
  const wanted = useRef(50);
  const load = useCallback(async () => {
    try {
      const query = new URLSearchParams({ limit: Math.min(wanted.current, 200), ...(tag ? { tag } : {}) });
      setState(await get(`/v1/library?${query}`));
    } catch (error) {
      if (error.status !== 401) tell(error.message);
    }
  }, [tag]);
  useEffect(() => void load(), [load]);
  useEffect(() => onTaken(load), [load]);
  const isBusy = state && state.data.some((recording) => recording.status === "working");
  useEffect(() => {
    if (!isBusy) return undefined;
    const timer = setInterval(() => document.hidden || load(), EVERY);
    return () => clearInterval(timer);
  }, [isBusy, load]);
  const more = () => {
    wanted.current += 50;
    load();
  };
  return [state, load, more];
}

function useSearch(query) {
  const [hits, setHits] = useState(null);
  useEffect(() => {
    setHits(null);
    if (!query.trim()) return undefined;
    const abort = new AbortController();
    const timer = setTimeout(() => {
      get(`/v1/library/search?${new URLSearchParams({ q: query })}`, { signal: abort.signal })
        .then((found) => setHits(found.data), (error) => error.name === "AbortError" || tell(error.message));
    }, 150);
    return () => {
      clearTimeout(timer);
      abort.abort();
    };
  }, [query]);
  return hits;
}

export function Home() {
  const [tag, setTag] = useState("");
  const [query, setQuery] = useState("");
  const [library, load, more] = useLibrary(tag);
  const sending = useStore(uploads);
  const hits = useSearch(query);
  const choice = useChoice(tag);
  const act = async (action, recording, value) => {
    const path = `/v1/library/${recording.id}`;
    try {
      if (action === "delete") await remove(path);
      else if (action === "rename") await patch(path, { name: value });
      else if (action === "tags") await patch(path, { tags: value });
      else await post(`${path}/${action}`);
    } catch (error) {
      tell(error.message);
    }
    load();
  };
  const recordings = library ? library.data : [];
  return html`<main class="home">
    <${DropZone} />
    ${library && !library.is_lasting && html`<p class="notice">This server forgets recordings when it ends. Start it with
      <code>--library FOLDER</code> to keep them.</p>`}
    <${Kept} />
    ${sending.length > 0 && html`<ul class="rows" aria-label="Uploads">${sending.map((item) => html`<${UploadRow} key=${item.id} item=${item} />`)}</ul>`}
    ${(recordings.length > 0 || tag || query) && html`<section aria-labelledby="library">
      <div class="library-head"><h2 id="library">Library</h2><${ChoiceButton} choice=${choice} />
        <label class="search"><${Icon} name="find" /><input type="search" value=${query} placeholder="Search all that was said"
          aria-label="Search all that was said" onInput=${(event) => setQuery(event.target.value)} /></label></div>
      ${library && library.tags.length > 0 && html`<div class="tags" role="group" aria-label="Tags">
        ${library.tags.map((one) => html`<button type="button" key=${one.tag} class="tag" aria-pressed=${one.tag === tag}
          onClick=${() => setTag(one.tag === tag ? "" : one.tag)}>${one.tag} <small>${one.count}</small></button>`)}</div>`}
      <${ChoiceBar} choice=${choice} tag=${tag} />
      ${query.trim() ? html`<${Hits} query=${query} hits=${hits} />`
        : html`<ul class="rows">${recordings.map((one) => html`<${Row} key=${one.id} recording=${one} act=${act} choice=${choiceOf(choice, one)} />`)}</ul>`}
      ${!query.trim() && library && library.has_more && html`<p class="buttons"><button type="button" onClick=${more}>Show more</button></p>`}
    </section>`}
    ${library && !recordings.length && !tag && !sending.length && html`<p class="quiet welcome">Interviews, meetings, lectures, films: what is
      said is written down on this server, and goes nowhere else.</p>`}
  </main>`;
}
