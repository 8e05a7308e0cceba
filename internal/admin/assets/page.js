"use strict";
// Puts each event's fragment in place of what is shown, part by part and only
// where it differs, so that a selection or an opened table outlives an update.
(() => {
  const link = document.getElementById("link");
  let events, silence;

  function say(state, text) {
    link.dataset.link = state;
    link.textContent = text;
    document.body.classList.toggle("stale", state === "lost");
  }

  function show(html) {
    const next = new DOMParser().parseFromString(html, "text/html");
    for (const part of next.querySelectorAll("[data-part]")) {
      const shown = document.getElementById(part.id);
      if (shown && !shown.isEqualNode(part)) shown.replaceChildren(...part.childNodes);
    }
    document.title = document.querySelector("[data-title]").dataset.title + " · unrestrict-worker";
  }

  function heard() {
    if (link.dataset.link !== "live") say("live", "Live");
    clearTimeout(silence);
    silence = setTimeout(again, 40000); // the server is heard from every 15 s
  }

  function lost() {
    if (link.dataset.link === "lost") return;
    say("lost", "Connection lost at " + new Date().toISOString().slice(11, 19) + " UTC, trying again");
  }

  function close() {
    clearTimeout(silence);
    if (events) events.close();
  }

  function again() {
    close();
    lost();
    silence = setTimeout(open, 5000);
  }

  function open() {
    close();
    events = new EventSource("events");
    events.addEventListener("page", (e) => { heard(); show(JSON.parse(e.data)); });
    events.addEventListener("beat", heard);
    // The browser tries again by itself after a cut connection, not after a refusal.
    events.onerror = () => (events.readyState === EventSource.CLOSED ? again() : lost());
  }

  // A browser allows few connections to one host: tabs nobody looks at hold none.
  document.addEventListener("visibilitychange", () => (document.hidden ? close() : open()));
  if (!document.hidden) open();
})();
