// The uploads of this tab: files wait, are sent two at a time, and become recordings of the library.
import { ApiError, upload } from "./api.js";
import { formFields } from "./options.js";
import { Store } from "./ui.js";

const AT_ONCE = 2;
const SOUND = /\.(wav|w64|mp3|m4a|m4b|aac|flac|ogg|oga|opus|webm|mkv|mka|mp4|mov|avi|wma|asf|amr|aif|aiff|au|caf|ac3|wv|tta|flv|mpe?g|3gp)$/i;

export const uploads = new Store([]); // {id, file, name, tags, fields, state: "waiting"|"sending"|"failed", share, error, abort, onEnd}
export const localFiles = new Map(); // id of a recording: the file it was made of, which needs no network to be heard
const listeners = new Set();
let number = 0;

/** Call a function with each recording that was taken in. */
export function onTaken(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

/** Add files with the options that are chosen now; gives those that are no sound. `onEnd` gets the recording that was made, or null. */
export function addFiles(files) {
  const refused = [];
  const added = [];
  for (const { file, folder, onEnd } of files) {
    const isSound = /^(audio|video)\//.test(file.type) || SOUND.test(file.name);
    if (!isSound || !file.size) refused.push(file.name);
    else added.push({ id: ++number, file, name: file.name, tags: folder ? [folder] : [], fields: formFields(), state: "waiting", share: 0, onEnd });
  }
  uploads.set([...uploads.value, ...added]);
  work();
  return refused;
}

export function retry(item) {
  change(item, { state: "waiting", error: null, share: 0 });
  work();
}

export function drop(item) {
  if (item.abort) item.abort();
  uploads.set(uploads.value.filter((one) => one.id !== item.id));
  item.onEnd?.(null);
  work();
}

function change(item, fields) {
  uploads.set(uploads.value.map((one) => (one.id === item.id ? { ...one, ...fields } : one)));
}

function work() {
  const sending = uploads.value.filter((item) => item.state === "sending").length;
  for (const item of uploads.value.filter((one) => one.state === "waiting").slice(0, AT_ONCE - sending)) transmit(item);
}

async function transmit(item) {
  const fields = [["name", item.name], ["tags", JSON.stringify(item.tags)], ...item.fields];
  const sent = upload("/v1/library", fields, item.file, (share) => change(item, { share }));
  change(item, { state: "sending", abort: sent.abort });
  try {
    const recording = await sent.done;
    localFiles.set(recording.id, item.file);
    uploads.set(uploads.value.filter((one) => one.id !== item.id));
    for (const listener of listeners) listener(recording);
    item.onEnd?.(recording);
  } catch (error) {
    const isBusy = error instanceof ApiError && (error.status === 429 || error.status === 503);
    if (error.name !== "AbortError") change(item, { state: "failed", error: error.message, isBusy });
  }
  work();
}

/** The files of a drop or a paste, those of folders too, each with the name of its folder. */
export async function filesOf(transfer) {
  const entries = [...(transfer.items || [])].map((item) => item.webkitGetAsEntry && item.webkitGetAsEntry()).filter(Boolean);
  if (!entries.length) return [...transfer.files].map((file) => ({ file, folder: "" }));
  const found = [];
  for (const entry of entries) await collect(entry, "", found);
  return found;
}

async function collect(entry, folder, found) {
  if (entry.isFile) {
    const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
    if (!entry.name.startsWith(".")) found.push({ file, folder });
    return;
  }
  const reader = entry.createReader();
  for (;;) {
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!some.length) return;
    for (const child of some) await collect(child, entry.name, found);
  }
}
