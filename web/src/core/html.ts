/** Elements as templates. Whatever is put into one is text: nothing that comes from a server or a guest is read as HTML. */
import htm from "htm";
import { h, type VNode } from "preact";

export const html = htm.bind(h) as (strings: TemplateStringsArray, ...values: unknown[]) => VNode;

/** Something to draw. */
export type View = VNode | string | null;
