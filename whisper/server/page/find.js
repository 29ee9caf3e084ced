// Find and replace in the transcript.
import { findAll, replace } from "./document.js";
import { Icon, html, tell, useEffect, useMemo, useRef, useState } from "./ui.js";

/** The state of a search: {hits, current, go}. `hits` is by the uid of a segment. */
export function useFind(segments, query, how) {
  const [current, setCurrent] = useState(0);
  const all = useMemo(() => findAll(segments, query, how), [segments, query, how]);
  const number = all.length ? Math.min(current, all.length - 1) : 0;
  const byUid = useMemo(() => {
    const found = new Map();
    all.forEach((hit, i) => {
      if (!found.has(hit.uid)) found.set(hit.uid, []);
      found.get(hit.uid).push({ ...hit, isCurrent: i === number });
    });
    return found;
  }, [all, number]);
  return { all, byUid, number, setNumber: setCurrent };
}

export function FindBar({ find, query, setQuery, how, setHow, editor, onShow, onClose }) {
  const field = useRef(null);
  const [by, setBy] = useState("");
  const [replaces, setReplaces] = useState(false);
  useEffect(() => {
    field.current.focus();
    field.current.select();
  }, []);
  const { all, number, setNumber } = find;
  const go = (step) => {
    if (!all.length) return;
    const next = (number + step + all.length) % all.length;
    setNumber(next);
    onShow(all[next]);
  };
  const keys = (event) => {
    if (event.key === "Escape") onClose();
    else if (event.key === "Enter") {
      event.preventDefault();
      go(event.shiftKey ? -1 : 1);
    }
  };
  const put = (only) => {
    const { segments } = editor.state.value;
    const changed = replace(segments, query, by, how, only);
    editor.endStep();
    editor.change({ segments: changed.every((one, i) => one === segments[i]) ? segments : changed });
    editor.alignLater(changed.filter((one, i) => one !== segments[i]).map((one) => one.uid));
    if (!only) tell(`${all.length} ${all.length === 1 ? "place" : "places"} replaced`);
  };
  const option = (name, label, title) => html`<button type="button" class="toggle" aria-pressed=${how[name]} title=${title} aria-label=${title}
    onClick=${() => setHow({ ...how, [name]: !how[name] })}>${label}</button>`;
  return html`<div class="find" role="search">
    <div class="line">
      <input ref=${field} type="search" aria-label="Find in the transcript" placeholder="Find" value=${query} onInput=${(e) => setQuery(e.target.value)} onKeyDown=${keys} />
      <span class="count" role="status">${query.trim() ? (all.length ? `${number + 1} of ${all.length}` : "None") : ""}</span>
      <button type="button" class="quiet" aria-label="Hit before" onClick=${() => go(-1)}><${Icon} name="up" /></button>
      <button type="button" class="quiet" aria-label="Next hit" onClick=${() => go(1)}><${Icon} name="down" /></button>
      ${option("matchCase", "Aa", "Capitals matter")} ${option("wholeWords", "“ ”", "Whole words only")}
      <button type="button" class="toggle" aria-pressed=${replaces} onClick=${() => setReplaces(!replaces)}>Replace</button>
      <button type="button" class="quiet" aria-label="Close the search" onClick=${onClose}><${Icon} name="close" /></button>
    </div>
    ${replaces && html`<div class="line">
      <input type="text" aria-label="Replace by" placeholder="Replace by" value=${by} onInput=${(e) => setBy(e.target.value)} onKeyDown=${(e) => e.key === "Escape" && onClose()} />
      <button type="button" disabled=${!all.length} onClick=${() => put(all[number])}>This one</button>
      <button type="button" disabled=${!all.length} onClick=${() => put(null)}>All</button></div>`}
  </div>`;
}
