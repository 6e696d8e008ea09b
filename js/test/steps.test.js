// A step of the page in its address, and back.

import assert from "node:assert/strict";
import { test } from "node:test";

import { addressOf, newStep, readAddress } from "../../src/image2sentence/server/static/steps.js";

const nothing = { pairs: () => [], sort: "" };
const asked = ({ item, own, weight, also, text }) => ({ item, own, weight, also, text });

test("several references and their weights are in the address", () => {
  const one = newStep({ item: 3, weight: 2, also: [{ item: 0, weight: 0.5 }, { own: "0f3c", file: {}, weight: 1 }], text: "in red" });
  const back = readAddress(addressOf(one, nothing)).step;
  assert.deepEqual(asked(back), { item: 3, own: undefined, weight: 2, also: [{ item: 0, weight: 0.5 }, { own: "0f3c", weight: 1 }], text: "in red" });
});

test("a picture that the browser did not keep is not in the address", () => {
  const one = newStep({ item: 3, also: [{ file: {}, own: undefined, weight: 4 }] });
  assert.equal(addressOf(one, nothing), "#item=3");
});

test("an address that nobody wrote asks for nothing strange", () => {
  const strange = "#item=3&weight=-1&also=x,1&also=own-,1&also=&also=5,1e9&also=6,x&also=own-../a,1&" + "also=7,2&".repeat(20);
  const { weight, also } = readAddress(strange).step;
  assert.equal(weight, 1);
  assert.deepEqual(also.slice(0, 3), [{ item: 5, weight: 1 }, { item: 6, weight: 1 }, { item: 7, weight: 2 }]);
  assert.equal(also.length, 7);
});
