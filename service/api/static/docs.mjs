// Sends the request of a form on this page, and shows what comes back.

const MOST_SHOWN = 100_000; // characters of an answer
const token = document.getElementById("token");

for (const form of document.querySelectorAll("form[data-path]")) {
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const shown = form.nextElementSibling.matches("pre") ? form.nextElementSibling : document.createElement("pre");
    form.after(shown);
    shown.textContent = "…";
    try {
      shown.textContent = await send(form);
    } catch (error) {
      shown.textContent = `no answer: ${error.message}`;
    }
  });
}

async function send(form) {
  let path = form.dataset.path;
  const query = new URLSearchParams();
  const headers = {};
  for (const input of form.querySelectorAll("input[data-in]")) {
    if (input.dataset.in === "path") path = path.replace(`{${input.name}}`, encodeURIComponent(input.value));
    else if (input.value === "") continue;
    else if (input.dataset.in === "query") query.set(input.name, input.value);
    else headers[input.name] = input.value;
  }
  if (token.value) headers.Authorization = `Bearer ${token.value}`;
  const body = form.elements.body?.value.trim() || undefined;
  if (body) headers["Content-Type"] = "application/json";
  const address = query.size ? `${path}?${query}` : path;
  const answer = await fetch(address, { method: form.dataset.method, headers, body, credentials: "omit" });
  const kind = answer.headers.get("Content-Type") ?? "";
  const head = `${answer.status} ${answer.statusText}\n${[...answer.headers].map(([name, value]) => `${name}: ${value}`).join("\n")}\n\n`;
  if (kind.startsWith("video/")) {
    await answer.body?.cancel();
    return `${head}(video)`;
  }
  let text = await answer.text();
  if (kind.includes("json") && text) text = JSON.stringify(JSON.parse(text), null, 2);
  return head + text.slice(0, MOST_SHOWN);
}
