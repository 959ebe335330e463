import type { Random } from '../random.ts';
import type { CertificateRequest, Issuer } from './certificate.ts';
import { TAG } from './certificate-form.ts';
import { headerSize, writeHeader } from './der.ts';
import { LeafImage } from './leaf-image.ts';
import { lintLeaf } from './lint.ts';
import { Serials } from './serials.ts';
import { schemeOf, signLater, signNow, type Scheme } from './signature.ts';

export interface MintedLeaf {
  /** Not shared with anything else. */
  readonly der: Buffer;
  /** Hexadecimal. */
  readonly serial: string;
}

/** Forms of keys and dates for which an issuer keeps an image: more than one agent has. */
const IMAGES = 8;
/** Names of which an image remembers that they were judged. One that it has forgotten is judged again. */
const JUDGED_NAMES = 8192;

interface Judged {
  readonly image: LeafImage;
  /** Oldest first. */
  readonly names: Set<string>;
}

interface Press {
  readonly scheme: Scheme;
  /** The last used first. */
  images: readonly Judged[];
}

/**
 * Makes leaves with the profile of X509-SVID §4 and Appendix A from images (leaf-image.ts). The first leaf of an issuer, a form of
 * key and dates, and names is read again as a whole (lint.ts) before it is released; after it only serial number, dates, key and key
 * identifier differ, at places that are fixed.
 */
export class LeafMint {
  readonly #serials: Serials;
  readonly #more: Buffer | undefined;
  /** What belongs to an issuer goes with it. */
  readonly #presses = new WeakMap<Issuer, Press>();

  /** `more`: extensions in DER that every leaf has besides those of its profile. */
  constructor(random: Random, more?: Buffer) {
    this.#serials = new Serials(random);
    this.#more = more;
  }

  /**
   * A leaf signed by `issuer`: at once where signing is quick, else from the thread pool.
   *
   * @throws SignetError `profile_violation` when it breaks the profile (lint.ts); the promise rejects with the same.
   */
  mint(issuer: Issuer, asked: CertificateRequest): MintedLeaf | Promise<MintedLeaf> {
    const press = this.#pressOf(issuer);
    const { scheme } = press;
    const judged = imageFor(press, issuer, asked, this.#more);
    const serial = this.#serials.next();
    const tbs = judged.image.fill(asked, serial);
    if (scheme.isQuick) return release(judged, certificateOf(tbs, scheme, signNow(scheme, issuer.privateKey, tbs)), serial, asked, issuer);
    const own = Buffer.from(tbs);
    return signLater(scheme, issuer.privateKey, own).then((signature) => release(judged, certificateOf(own, scheme, signature), serial, asked, issuer));
  }

  #pressOf(issuer: Issuer): Press {
    let press = this.#presses.get(issuer);
    if (press === undefined) {
      press = { scheme: schemeOf(issuer.privateKey), images: [] };
      this.#presses.set(issuer, press);
    }
    return press;
  }
}

function imageFor(press: Press, issuer: Issuer, asked: CertificateRequest, more: Buffer | undefined): Judged {
  const [last] = press.images;
  if (last?.image.fits(asked) === true) return last;
  const found = press.images.find(({ image }) => image.fits(asked)) ?? { image: new LeafImage(issuer, press.scheme, asked, more), names: new Set() };
  press.images = [found, ...press.images.filter((one) => one !== found)].slice(0, IMAGES);
  return found;
}

function release({ names }: Judged, der: Buffer, serial: Buffer, asked: CertificateRequest, issuer: Issuer): MintedLeaf {
  const { id, dnsNames, notBefore, notAfter } = asked;
  // No ID begins with a bracket, so that no two lists of names have one key.
  const key = dnsNames.length === 0 ? id : JSON.stringify([id, ...dnsNames]);
  const areDatesGood = notBefore >= issuer.notBefore && notAfter <= issuer.notAfter && notBefore < notAfter;
  if (!areDatesGood || !names.has(key)) {
    lintLeaf(der, asked, issuer);
    names.add(key);
    const [oldest] = names.size > JUDGED_NAMES ? names : [];
    if (oldest !== undefined) names.delete(oldest);
  }
  return { der, serial: serial.toString('hex') };
}

function certificateOf(tbs: Buffer, { algorithm }: Scheme, signature: Buffer): Buffer {
  const bits = signature.length + 1;
  const content = tbs.length + algorithm.length + headerSize(bits) + bits;
  // Not from Node's pool: a leaf is kept for hours, and would keep its neighbours.
  const der = Buffer.allocUnsafeSlow(headerSize(content) + content);
  let at = writeHeader(der, 0, TAG.sequence, content);
  der.set(tbs, at);
  at += tbs.length;
  der.set(algorithm, at);
  at = writeHeader(der, at + algorithm.length, TAG.bitString, bits);
  der[at] = 0;
  der.set(signature, at + 1);
  return der;
}
