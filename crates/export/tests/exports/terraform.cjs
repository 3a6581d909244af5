// Checks Terraform files: node terraform.cjs MODULES DECLARATIONS FILE…
// Syntax by HashiCorp's own parser; the form that `terraform fmt` gives; each resource's attributes and blocks, and those that it must
// have, by the declarations that were made from the AWS provider's schema. It does not evaluate expressions and asks nothing of AWS.
const fs = require("fs");
const path = require("path");
const [modules, declarations, ...files] = process.argv.slice(2);
const tools = require(path.join(modules, "@cdktf/hcl-tools"));
const { parse } = require(path.join(modules, "@cdktf/hcl2json"));

const META = new Set(["count", "depends_on", "for_each", "lifecycle", "provider"]);
const wrong = [];
const camel = (name) => name.replace(/_(\w)/g, (_, letter) => letter.toUpperCase());

/** The interfaces of one resource: name → property → { required, type }. */
function interfaces(resource) {
  const file = path.join(declarations, resource.replace(/^aws_/, "").replaceAll("_", "-"), "index.d.ts");
  if (!fs.existsSync(file)) throw new Error(`no declaration of ${resource}; add it to .ci/exports`);
  const found = new Map();
  for (const [, name, body] of fs.readFileSync(file, "utf8").matchAll(/export interface (\w+)[^{]*\{([\s\S]*?)\n\}/g)) {
    const properties = new Map();
    for (const [, key, optional, type] of body.matchAll(/readonly (\w+)(\??): ([^;]+);/g)) {
      properties.set(key, { required: !optional, type });
    }
    found.set(name, properties);
  }
  return found;
}

function check(where, value, properties, all) {
  const dynamic = Object.keys(value.dynamic ?? {});
  const names = new Set([...Object.keys(value).filter((key) => key !== "dynamic"), ...dynamic]);
  for (const [property, { required }] of properties) {
    if (required && ![...names].some((name) => camel(name) === property)) wrong.push(`${where}: ${property} is missing`);
  }
  for (const name of names) {
    if (META.has(name)) continue;
    const property = properties.get(camel(name));
    if (!property) {
      wrong.push(`${where}: unknown ${name}`);
      continue;
    }
    const nested = property.type.split(/[^\w]+/).find((type) => all.has(type));
    const blocks = dynamic.includes(name) ? value.dynamic[name].map((it) => it.content).flat() : [value[name]].flat();
    for (const block of blocks) {
      if (nested) {
        if (typeof block === "object") check(`${where}.${name}`, block, all.get(nested), all);
        else wrong.push(`${where}.${name} must be a block`);
      } else if (/^number\b/.test(property.type) && typeof block === "string" && !/^\$\{|^\d+$/.test(block)) {
        wrong.push(`${where}.${name} must be a number, not ${block}`);
      } else if (/^boolean\b/.test(property.type) && typeof block !== "boolean" && !/^\$\{/.test(block)) {
        wrong.push(`${where}.${name} must be true or false, not ${block}`);
      }
    }
  }
}

(async () => {
  const declared = new Set();
  const texts = [];
  for (const file of files) {
    const text = fs.readFileSync(file, "utf8");
    texts.push(text);
    const formatted = await tools.format(text);
    if (formatted !== text) wrong.push(`${file}: terraform fmt would change it:\n${formatted}`);
    const parsed = await parse(path.basename(file), text);
    for (const [resource, named] of Object.entries(parsed.resource ?? {})) {
      const all = interfaces(resource);
      const config = [...all.keys()].find((name) => name.endsWith("Config"));
      for (const [name, bodies] of Object.entries(named)) {
        declared.add(`${resource}.${name}`);
        for (const body of bodies) check(`${resource}.${name}`, body, all.get(config), all);
      }
    }
    for (const name of Object.keys(parsed.variable ?? {})) declared.add(`var.${name}`);
  }
  // What is referred to must be there.
  for (const [, reference] of texts.join("\n").matchAll(/\b(var\.\w+|aws_\w+\.\w+)/g)) {
    if (!declared.has(reference)) wrong.push(`there is no ${reference}`);
  }
  for (const line of wrong) console.error(line);
  process.exit(wrong.length ? 1 : 0);
})();
