import { ConfigError, parseConfig, type Problem } from '../../src/config/load.ts';
import type { Environment } from '../../src/config/environment.ts';

/** What is wrong with a text, or an empty list. */
export function problemsOf(yaml: string, env: Environment = {}): readonly Problem[] {
  try {
    parseConfig(yaml, 'signet.yaml', env);
    return [];
  } catch (error) {
    if (error instanceof ConfigError) return error.problems;
    throw error;
  }
}

/** The error of a text that has to be refused. */
export function errorOf(read: () => unknown): ConfigError {
  try {
    read();
  } catch (error) {
    if (error instanceof ConfigError) return error;
    throw error;
  }
  throw new Error('the configuration was accepted');
}

/** A file with one entry, in flow style. */
export function withEntries(...entries: string[]): string {
  const list = entries.map((one) => `  - ${one}\n`).join('');
  return `trustDomain: example.org\nattestation: { unix: { path: true } }\nentries:\n${list}`;
}

/** The least that an entry needs, and `more`. */
export function entry(more = '', selectors = '["unix:uid:1000"]'): string {
  return `{ id: spiffe://example.org/web, selectors: ${selectors}${more === '' ? '' : `, ${more}`} }`;
}
