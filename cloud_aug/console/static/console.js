// Keeps a page true: when the server says that something has changed, the page is fetched anew and its parts replaced.
// Everything works without this script, after loading the page again.
"use strict";

const PATIENCE_MS = 2000; // a fleet changes all the time: fetch no more often than this
const WITHOUT_STREAM_MS = 15000;
const part = document.querySelector("[data-live]");
const light = document.getElementById("live");
let stream = null, timer = null, wanted = false, fetching = false, polling = null;

function say(text, off) {
  if (!light) return;
  light.hidden = false;
  light.classList.toggle("off", off);
  document.getElementById("live-says").textContent = text;
}

function span(seconds) {
  for (const [unit, name] of [[86400, "d"], [3600, "h"], [60, "min"]]) {
    if (seconds >= unit) return `${Math.floor(seconds / unit)} ${name}`;
  }
  return `${Math.max(0, Math.floor(seconds))} s`;
}

function tellTimes() {
  for (const time of document.querySelectorAll("time[data-ago]")) {
    time.textContent = `${span((Date.now() - Date.parse(time.dateTime)) / 1000)} ago`;
  }
}

function replace(old, made) {
  if (old.innerHTML === made.innerHTML) return;
  const focused = old.contains(document.activeElement) ? document.activeElement : null;
  const href = focused && focused.getAttribute("href");
  const open = [...old.querySelectorAll("details[open][id]")].map((one) => one.id);
  const aside = [...old.querySelectorAll(".scroll[id]")].map((one) => [one.id, one.scrollLeft]);
  old.replaceChildren(...made.childNodes);
  for (const id of open) document.getElementById(id)?.setAttribute("open", "");
  for (const [id, left] of aside) document.getElementById(id)?.scrollTo({ left, behavior: "instant" });
  if (focused) {
    const again = focused.id ? document.getElementById(focused.id)
      : [...old.querySelectorAll("a[href]")].find((one) => one.getAttribute("href") === href);
    (again || document.getElementById("main")).focus({ preventScroll: true });
  }
}

async function refresh() {
  timer = null;
  if (fetching) { wanted = true; return; }
  fetching = true;
  try {
    const answer = await fetch(location.href, { headers: { "X-Live": "1" }, redirect: "error" });
    if (answer.status === 401) { location.reload(); return; }
    if (answer.ok) {
      const made = new DOMParser().parseFromString(await answer.text(), "text/html");
      for (const old of document.querySelectorAll("[data-live]")) {
        const fresh = made.getElementById(old.id);
        if (fresh) { old.dataset.mark = fresh.dataset.mark; replace(old, fresh); }
      }
      tellTimes();
      say("live", false);
    }
  } catch { say("waiting for the server", true); }
  fetching = false;
  if (wanted) { wanted = false; later(); }
}

function later() {
  timer ??= setTimeout(refresh, PATIENCE_MS);
}

function watch() {
  const asked = new URLSearchParams({ of: part.dataset.live, key: part.dataset.key || "" });
  stream = new EventSource(`/live?${asked}`);
  stream.addEventListener("open", () => { clearInterval(polling); say("live", false); });
  stream.addEventListener("changed", (event) => { if (event.data !== part.dataset.mark) later(); });
  stream.addEventListener("ended", () => { stream.close(); location.reload(); });
  stream.addEventListener("error", () => {
    say("waiting for the server", true);
    if (stream.readyState !== EventSource.CLOSED) return; // it tries again by itself
    clearInterval(polling); // no place for a stream: ask now and then instead
    polling = setInterval(refresh, WITHOUT_STREAM_MS);
  });
}

if (part && window.EventSource) {
  watch();
  document.addEventListener("visibilitychange", () => {
    stream.close();
    clearInterval(polling);
    if (!document.hidden) { watch(); later(); }
  });
  window.addEventListener("pagehide", () => stream.close());
  window.addEventListener("pageshow", (event) => { if (event.persisted) { watch(); later(); } });
}
setInterval(tellTimes, 10000);
