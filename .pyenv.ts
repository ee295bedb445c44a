import { ownPython, publishedPackage, sdkPython } from "./test/python-support.ts";
console.log(await ownPython()); const p = await sdkPython(); console.log(p);
for (const [n, vs] of Object.entries({ stacyvm: ["0.1.0", "0.1.1"], forgevm: ["0.1.0", "0.1.1", "0.1.2"] })) for (const v of vs) console.log(await publishedPackage(p, n, v));
