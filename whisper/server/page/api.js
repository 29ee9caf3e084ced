// Requests to the server. The key, where one is needed, lives in this tab alone and travels in a header alone.
import { Store } from "./ui.js";

const KEY = "sotto.key";
export const needsKey = new Store(false);

export class ApiError extends Error {
  constructor(status, body) {
    const error = (body && body.error) || {};
    super(error.message || `the server answered ${status}`);
    this.status = status;
    this.code = error.code || null;
  }
}

export function setKey(key) {
  sessionStorage.setItem(KEY, key);
  needsKey.set(false);
}

function authorization() {
  const key = sessionStorage.getItem(KEY);
  return key ? { authorization: `Bearer ${key}` } : {};
}

/** The subprotocols of a websocket, one of which is the key: a browser sends no headers there. */
export function protocols() {
  const key = sessionStorage.getItem(KEY);
  return key ? ["realtime", `openai-insecure-api-key.${key}`] : ["realtime"];
}

function refused(status) {
  if (status === 401) needsKey.set(true);
}

/** Send a request; gives the answer, or throws `ApiError`. */
export async function send(path, { method = "GET", json, headers = {}, signal } = {}) {
  const sent = { ...authorization(), ...headers };
  if (json !== undefined) sent["content-type"] = "application/json";
  const body = json === undefined ? undefined : JSON.stringify(json);
  const answer = await fetch(path, { method, headers: sent, body, signal, credentials: "same-origin" });
  if (!answer.ok) {
    refused(answer.status);
    throw new ApiError(answer.status, await answer.json().catch(() => null));
  }
  return answer;
}

export const get = async (path, options) => (await send(path, options)).json();
export const post = async (path, json = {}, options = {}) => (await send(path, { method: "POST", json, ...options })).json();
export const patch = async (path, json) => (await send(path, { method: "PATCH", json })).json();
export const remove = async (path) => (await send(path, { method: "DELETE" })).json();

/** Upload a form with a file; `onProgress` gets the share that is sent. Gives the answer and a function that aborts. */
export function upload(path, fields, file, onProgress) {
  const request = new XMLHttpRequest();
  const done = new Promise((resolve, reject) => {
    const form = new FormData();
    for (const [name, value] of fields) form.append(name, value);
    form.append("file", file, "upload");
    request.open("POST", path);
    for (const [name, value] of Object.entries(authorization())) request.setRequestHeader(name, value);
    request.responseType = "json";
    request.upload.onprogress = (event) => event.lengthComputable && onProgress(event.loaded / event.total);
    request.onload = () => {
      if (request.status < 300) return resolve(request.response);
      refused(request.status);
      reject(new ApiError(request.status, request.response));
    };
    request.onerror = () => reject(new Error("the server cannot be reached"));
    request.onabort = () => reject(new DOMException("aborted", "AbortError"));
    request.send(form);
  });
  return { done, abort: () => request.abort() };
}

/** Follow server-sent events to their end, over lost connections; a fetch, since EventSource sends no key. */
export async function follow(path, onEvent, signal) {
  let last = "0";
  for (let wait = 500; !signal.aborted; wait = Math.min(wait * 2, 10_000)) {
    try {
      const answer = await send(path, { headers: { "last-event-id": last }, signal });
      await readEvents(answer.body, (id, event) => {
        if (id) last = id;
        wait = 500;
        onEvent(event);
      });
      return;
    } catch (error) {
      if (signal.aborted || error instanceof ApiError) return;
      await new Promise((resolve) => setTimeout(resolve, wait));
    }
  }
}

async function readEvents(stream, onEvent) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    text += value;
    for (let end = text.indexOf("\n\n"); end >= 0; end = text.indexOf("\n\n")) {
      const lines = text.slice(0, end).split("\n");
      text = text.slice(end + 2);
      const id = lines.find((line) => line.startsWith("id: "));
      const data = lines.find((line) => line.startsWith("data: "));
      if (data) onEvent(id && id.slice(4), JSON.parse(data.slice(6)));
    }
  }
}

/** Have the browser save what an address gives. */
export async function download(path, options) {
  const answer = await send(path, options);
  const named = /filename\*=UTF-8''([^;]+)/.exec(answer.headers.get("content-disposition") || "");
  const link = document.createElement("a");
  link.href = URL.createObjectURL(await answer.blob());
  link.download = named ? decodeURIComponent(named[1]) : "transcript";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
