/** One block of a PEM file (RFC 7468 §2). */
export interface PemBlock {
  /** What stands after BEGIN: `CERTIFICATE`, `PRIVATE KEY`. */
  readonly label: string;
  /** The block with its borders. */
  readonly text: string;
  readonly der: Buffer;
}

const BORDER = /^-----(BEGIN|END) ([A-Z0-9 ]+)-----$/;

/**
 * The blocks of a PEM file in their order. Text between them is left out, as RFC 7468 §5.2 allows.
 *
 * @throws Error when a block does not end, or is not base64.
 */
export function readPem(text: string): PemBlock[] {
  const blocks: PemBlock[] = [];
  let open: { label: string; lines: string[] } | undefined;
  for (const line of text.split(/\r?\n/).map((one) => one.trim())) {
    const [, border, label = ''] = BORDER.exec(line) ?? [];
    if (border === 'BEGIN' && open !== undefined) throw new Error(`the block ${open.label} does not end`);
    if (border === 'BEGIN') open = { label, lines: [] };
    else if (border === 'END' && open?.label === label) {
      blocks.push(toBlock(open));
      open = undefined;
    } else if (border === 'END') throw new Error(`the block ${label} ends without having begun`);
    else open?.lines.push(line);
  }
  if (open !== undefined) throw new Error(`the block ${open.label} does not end`);
  return blocks;
}

/** Whether a private key is encrypted: by its label (RFC 7468 §11), or by the headers of older files (RFC 1421 §4.6.1.1). */
export function isEncrypted({ label, text }: PemBlock): boolean {
  return label === 'ENCRYPTED PRIVATE KEY' || /^Proc-Type:\s*4,\s*ENCRYPTED/m.test(text);
}

function toBlock({ label, lines }: { label: string; lines: readonly string[] }): PemBlock {
  // Headers come first and have a colon, which base64 has not.
  const body = lines.filter((line) => !line.includes(':')).join('');
  if (!/^[A-Za-z0-9+/]*={0,2}$/.test(body) && !lines.some((line) => line.includes(':'))) throw new Error(`the block ${label} is not base64`);
  return { label, text: [`-----BEGIN ${label}-----`, ...lines, `-----END ${label}-----`, ''].join('\n'), der: Buffer.from(body, 'base64') };
}

/** RFC 7468 §2 text of DER, in lines of 64 characters. */
export function toPem(label: 'CERTIFICATE' | 'CERTIFICATE REQUEST' | 'PRIVATE KEY', der: Buffer): string {
  const lines = der.toString('base64').match(/.{1,64}/g) ?? [];
  return `-----BEGIN ${label}-----\n${lines.join('\n')}\n-----END ${label}-----\n`;
}
