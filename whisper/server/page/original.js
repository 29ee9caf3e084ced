// What was heard at first: brought back for one segment, or for the whole transcript. Both can be undone.
import { get } from "./api.js";
import { restore } from "./document.js";
import { Dialog, html, tell, useState } from "./ui.js";

/** The transcript as it was heard, of a recording that may have been corrected since. */
async function heard(id) {
  try {
    return (await get(`/v1/library/${id}?original=true`)).document;
  } catch (error) {
    tell(error.message);
    return null;
  }
}

/** Bring one segment back, with those that were cut from it or joined with it. */
export async function restoreSegment(editor, uid) {
  const original = await heard(editor.id);
  if (!original) return;
  const { segments } = editor.state.value;
  const restored = restore(segments, original.segments, uid);
  if (restored === segments) {
    tell("Nothing was heard here; this segment was added");
    return;
  }
  editor.endStep();
  editor.change({ segments: restored });
  tell("As it was heard");
}

/** Asks, and brings all of a transcript back. */
export function RestoreAll({ editor, onClose }) {
  const [isBusy, setBusy] = useState(false);
  const run = async () => {
    setBusy(true);
    const original = await heard(editor.id);
    setBusy(false);
    if (!original) return;
    const { segments, speakers, findings } = original;
    editor.endStep();
    editor.change({ segments, speakers, findings });
    onClose();
  };
  return html`<${Dialog} title="Restore what was heard?" onClose=${onClose}>
    <p>All changes to texts, times and speakers are taken back. “Undo” brings them back while this page is open.</p>
    <p class="buttons"><button type="button" class="danger" disabled=${isBusy} onClick=${run}>Restore all</button>
      <button type="button" onClick=${onClose}>Keep the changes</button></p><//>`;
}
