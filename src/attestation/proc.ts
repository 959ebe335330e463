/**
 * Field 22 of `/proc/<pid>/stat`: the process's start in clock ticks since boot, as decimal digits. Undefined when the text is
 * not of that form. The command name (field 2) may hold blanks and parentheses, so fields are counted after the last `)`
 * (proc_pid_stat(5)).
 */
export function startTimeOf(stat: string): string | undefined {
  const end = stat.lastIndexOf(')');
  if (end === -1) return undefined;
  const [blank, ...fields] = stat.slice(end + 1).trimEnd().split(' ');
  const value = fields[22 - 3];
  return blank === '' && value !== undefined && /^[0-9]{1,20}$/.test(value) ? value : undefined;
}

/**
 * The effective user ID in `/proc/<pid>/status`: the second number of its only `Uid:` line (proc_pid_status(5)). Undefined when
 * the text is not of that form.
 */
export function effectiveUidOf(status: string): number | undefined {
  const lines = [...status.matchAll(/^Uid:(.*)$/gm)];
  const [line] = lines;
  if (lines.length !== 1 || line === undefined) return undefined;
  const match = /^\t[0-9]{1,10}\t([0-9]{1,10})\t[0-9]{1,10}\t[0-9]{1,10}$/.exec(line[1] ?? '');
  const uid = Number(match?.[1] ?? NaN);
  return uid <= 0xffff_ffff ? uid : undefined;
}
