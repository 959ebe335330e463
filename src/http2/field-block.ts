/** Field name and value, one character for each octet. */
export type Field = readonly [name: string, value: string];

/** `:status: 200` is whole in HPACK's static table (RFC 7541 Appendix A). */
const STATUS_200 = 0x88;

/**
 * A field block in which each field is a literal that enters no table, without Huffman (RFC 7541 §6.2.2): it means the same on every
 * connection, whatever came before, so that it is made once.
 */
export function encodeFields(fields: readonly Field[]): Buffer {
  return Buffer.concat(fields.map(([name, value]) => (name === ':status' && value === '200' ? Buffer.of(STATUS_200) : literal(name, value))));
}

function literal(name: string, value: string): Buffer {
  return Buffer.concat([Buffer.of(0), lengthOf(name), Buffer.from(name, 'latin1'), lengthOf(value), Buffer.from(value, 'latin1')]);
}

const PREFIX_MOST = 127;

/** RFC 7541 §5.1, with a prefix of seven bits. */
function lengthOf({ length }: string): Buffer {
  if (length < PREFIX_MOST) return Buffer.of(length);
  const octets = [PREFIX_MOST];
  let rest = length - PREFIX_MOST;
  for (; rest >= 128; rest >>>= 7) octets.push((rest & 127) | 128);
  return Buffer.from([...octets, rest]);
}
