// One upload by tus-js-client: node upload.mjs ENDPOINT TOKEN FILE CAPTURE_MS. Says how it went as a line of JSON.
import { createReadStream, statSync } from "node:fs";
import * as tus from "tus-js-client";

const [endpoint, token, file, captureMs] = process.argv.slice(2);
const offsets = [];
let retries = 0;
const upload = new tus.Upload(createReadStream(file), {
  endpoint,
  headers: { Authorization: `Bearer ${token}` },
  metadata: { capture_ms: captureMs, filename: "clip.ts" },
  uploadSize: statSync(file).size,
  retryDelays: Array(600).fill(100),
  storeFingerprintForResuming: false,
  onShouldRetry: () => (retries += 1) > 0,
  onAfterResponse: (request, response) => {
    const offset = response.getHeader("Upload-Offset");
    if (request.getMethod() === "HEAD" && response.getStatus() === 200) offsets.push(Number(offset));
  },
  onError: (error) => {
    console.log(JSON.stringify({ error: String(error), offsets, retries }));
    process.exit(1);
  },
  onSuccess: () => {
    console.log(JSON.stringify({ url: upload.url, offsets, retries }));
    process.exit(0);
  },
});
upload.start();
