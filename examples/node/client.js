// Calls Penstock from Node with nothing but the contracts in protos/: no generated code.
//
//   node client.js --googleapis DIR [--endpoint 127.0.0.1:8400] [--ca-file ca.pem | --plaintext]
//
// DIR holds google/api/annotations.proto and google/rpc/status.proto, which the contracts import
// (README.md says where it comes from). The key comes from PENSTOCK_API_KEY.

import { readFileSync } from "node:fs";
import { parseArgs } from "node:util";
import grpc from "@grpc/grpc-js";
import protoLoader from "@grpc/proto-loader";

const { values: options } = parseArgs({
  options: {
    googleapis: { type: "string" },
    endpoint: { type: "string", default: process.env.PENSTOCK_ENDPOINT ?? "127.0.0.1:8400" },
    "ca-file": { type: "string" },
    plaintext: { type: "boolean", default: false },
  },
});

if (!options.googleapis) {
  console.error("give --googleapis DIR, the folder with Google's common protos; see README.md");
  process.exit(2);
}

const definitions = protoLoader.loadSync(
  ["penstock/api/inference/v1/inference.proto", "penstock/api/embeddings/v1/embeddings.proto"],
  {
    includeDirs: [new URL("../../protos", import.meta.url).pathname, options.googleapis],
    keepCase: true,
    longs: Number,
    enums: String,
    defaults: true,
  },
);
const { inference, embeddings } = grpc.loadPackageDefinition(definitions).penstock.api;
const credentials = options.plaintext
  ? grpc.credentials.createInsecure()
  : grpc.credentials.createSsl(options["ca-file"] ? readFileSync(options["ca-file"]) : null);
const inferenceClient = new inference.v1.InferenceService(options.endpoint, credentials);
const embeddingsClient = new embeddings.v1.EmbeddingsService(options.endpoint, credentials);

const key = new grpc.Metadata();
key.set("authorization", `Bearer ${process.env.PENSTOCK_API_KEY ?? ""}`);
const within = (seconds) => ({ deadline: Date.now() + seconds * 1000 });

function call(client, method, request) {
  return new Promise((resolve, reject) => {
    const done = (error, answer) => (error ? reject(error) : resolve(answer));
    client[method](request, key, within(10), done);
  });
}

try {
  const texts = ["You charged my card twice for the same order."];
  const intent = await call(inferenceClient, "Classify", { model: "support-intent", texts, top_k: 1 });
  console.log("intent:", intent.results[0].labels[0].label);

  const vectors = await call(embeddingsClient, "Embed", { model: "minilm", texts });
  console.log("dimensions:", vectors.embeddings[0].values.length);

  const parameters = { max_tokens: 40, seed: 1 };
  const request = { model: "storyteller", prompt: "Once upon a time", parameters };
  process.stdout.write("story: ");
  for await (const step of inferenceClient.Generate(request, key, within(60))) {
    process.stdout.write(step.delta);
    if (step.metadata) console.log(`\n(${step.finish_reason}, ${step.metadata.usage.output_units} tokens)`);
  }
} catch (error) {
  const [requestId = "none"] = error.metadata?.get("x-request-id") ?? [];
  console.error(`${grpc.status[error.code] ?? "ERROR"}: ${error.details ?? error.message} (request ${requestId})`);
  process.exitCode = 1;
}
