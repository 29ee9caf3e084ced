// Several recordings of the library at once: chosen in its list, and saved as one zip file.
import { Formats, useSaving } from "./dialogs.js";
import { Dialog, html, useEffect, useState } from "./ui.js";

/** What is chosen in the list: null while nothing can be chosen, "all", or a set of ids. */
export function useChoice(tag) {
  const [chosen, set] = useState(null);
  useEffect(() => set(null), [tag]);
  return { chosen, set };
}

/** What a row of the list needs: whether it is chosen, and a function that changes that; null where nothing is chosen. */
export function choiceOf({ chosen, set }, recording) {
  if (chosen === null) return null;
  const isPossible = recording.status === "done";
  const toggle = () => {
    const next = new Set(chosen);
    if (!next.delete(recording.id)) next.add(recording.id);
    set(next);
  };
  return { isChosen: isPossible && (chosen === "all" || chosen.has(recording.id)), isPossible: isPossible && chosen !== "all", toggle };
}

export function ChoiceButton({ choice: { chosen, set } }) {
  return html`<button type="button" class="quiet" aria-pressed=${chosen !== null} onClick=${() => set(chosen === null ? new Set() : null)}>
    ${chosen === null ? "Select" : "Done"}</button>`;
}

export function ChoiceBar({ choice: { chosen, set }, tag }) {
  const [saves, setSaves] = useState(false);
  if (chosen === null) return null;
  const n = chosen === "all" ? "All" : chosen.size || "None";
  return html`<div class="choice" role="group" aria-label="Selection">
    <span role="status">${n} selected</span>
    <button type="button" onClick=${() => set(chosen === "all" ? new Set() : "all")}>${chosen === "all" ? "None" : "All"}</button>
    <button type="button" class="main" disabled=${chosen !== "all" && !chosen.size} onClick=${() => setSaves(true)}>Save</button>
    ${saves && html`<${SaveSeveral} what=${chosen === "all" ? (tag ? { tag } : {}) : { ids: [...chosen] }} onClose=${() => setSaves(false)} />`}
  </div>`;
}

function SaveSeveral({ what, onClose }) {
  const [busy, save] = useSaving();
  return html`<${Dialog} title="Save as one zip file" onClose=${onClose}>
    <${Formats} busy=${busy} save=${(name) => save("/v1/library/export", name, { method: "POST", json: { ...what, format: name } })} /><//>`;
}
