// Validates manifests against the published models of their kinds: values by the model's schema, unknown fields by its
// TypeScript type. Reads {name: manifest} as JSON from stdin, prints one problem a line. Run in the folder that holds
// the packages: node --input-type=module --eval "$(cat crd.mjs)"
import { readFileSync } from "node:fs";
import ts from "typescript";

const PACKAGES = {
  "monitoring.coreos.com": "@kubernetes-models/prometheus-operator",
  "gateway.networking.k8s.io": "@kubernetes-models/gateway-api",
};
const manifests = Object.entries(JSON.parse(readFileSync(0, "utf8")));

let source = "";
const problems = [];
for (const [index, [name, manifest]] of manifests.entries()) {
  const [group, version] = manifest.apiVersion.split("/");
  const path = `${PACKAGES[group]}/${group}/${version}`;
  const Model = (await import(path))[manifest.kind];
  try {
    new Model(manifest).validate();
  } catch (error) {
    problems.push(`${name}: ${error.message}`);
  }
  source += `import type { I${manifest.kind} as T${index} } from "${path}";\n`;
  source += `const d${index}: T${index} = ${JSON.stringify(manifest)};\n`;
}

const file = process.cwd() + "/manifests.ts";
const options = { noEmit: true, strict: true, skipLibCheck: true, types: [], module: ts.ModuleKind.ESNext, moduleResolution: ts.ModuleResolutionKind.Bundler };
const host = ts.createCompilerHost(options);
const read = host.getSourceFile.bind(host);
host.getSourceFile = (path, ...rest) => (path === file ? ts.createSourceFile(path, source, ts.ScriptTarget.Latest) : read(path, ...rest));
const exists = host.fileExists.bind(host);
host.fileExists = (path) => path === file || exists(path);
for (const diagnostic of ts.getPreEmitDiagnostics(ts.createProgram([file], options, host))) {
  const line = source.slice(0, diagnostic.start ?? 0).split("\n").length;
  const name = manifests[Math.floor((line - 1) / 2)]?.[0] ?? "models";
  problems.push(`${name}: ${ts.flattenDiagnosticMessageText(diagnostic.messageText, " ")}`);
}
console.log(problems.join("\n"));
