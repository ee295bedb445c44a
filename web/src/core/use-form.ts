/** The texts of a form, and what a field of it is given. */
import { useState } from "preact/hooks";

export function useForm<F extends Record<keyof F, string>>(empty: F) {
  const [form, setForm] = useState(empty);
  const of = (field: keyof F) => ({
    value: form[field],
    set: (value: string) => setForm((last) => ({ ...last, [field]: value })),
  });
  return { form, setForm, of };
}
