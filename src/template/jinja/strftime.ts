// `datetime.strftime` in the C locale, with glibc's padding flags (`%-d`).

const days = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const months = [
  "January",
  "February",
  "March",
  "April",
  "May",
  "June",
  "July",
  "August",
  "September",
  "October",
  "November",
  "December",
];

/** Local time, as `datetime.now()` gives it: without a time zone, so `%z` and `%Z` are empty. */
export function formatTime(date: Date, format: string): string {
  return format.replaceAll(
    /%([-_0^#]*)(\d*)([a-zA-Z%+])/g,
    (all: string, flags: string, width: string, directive: string) => {
      const text = expandDirective(date, directive, flags, width);
      if (text === undefined) return all;
      return /[\^#]/.test(flags) ? text.toUpperCase() : text;
    },
  );
}

function expandDirective(
  date: Date,
  directive: string,
  flags: string,
  width: string,
): string | undefined {
  const composite = composites[directive];
  if (composite !== undefined) return formatTime(date, composite);
  const number = numericField(date, directive);
  if (number !== undefined) {
    const [value, digits, fill] = number;
    if (flags.includes("-")) return String(value);
    const filler = flags.includes("_") ? " " : flags.includes("0") ? "0" : fill;
    return String(value).padStart(width === "" ? digits : Number(width), filler);
  }
  return textField(date, directive);
}

const composites: Readonly<Record<string, string>> = {
  c: "%a %b %e %H:%M:%S %Y",
  D: "%m/%d/%y",
  F: "%Y-%m-%d",
  r: "%I:%M:%S %p",
  R: "%H:%M",
  T: "%H:%M:%S",
  x: "%m/%d/%y",
  X: "%H:%M:%S",
};

/** Value, digits and fill of a numeric directive. */
function numericField(date: Date, directive: string): [number, number, string] | undefined {
  const hour12 = date.getHours() % 12 || 12;
  switch (directive) {
    case "Y":
      return [date.getFullYear(), 1, "0"];
    case "C":
      return [Math.floor(date.getFullYear() / 100), 2, "0"];
    case "y":
      return [date.getFullYear() % 100, 2, "0"];
    case "m":
      return [date.getMonth() + 1, 2, "0"];
    case "d":
      return [date.getDate(), 2, "0"];
    case "e":
      return [date.getDate(), 2, " "];
    case "H":
      return [date.getHours(), 2, "0"];
    case "k":
      return [date.getHours(), 2, " "];
    case "I":
      return [hour12, 2, "0"];
    case "l":
      return [hour12, 2, " "];
    case "M":
      return [date.getMinutes(), 2, "0"];
    case "S":
      return [date.getSeconds(), 2, "0"];
    case "f":
      return [date.getMilliseconds() * 1000, 6, "0"];
    case "s":
      return [Math.floor(date.getTime() / 1000), 1, "0"];
    default:
      return calendarField(date, directive);
  }
}

function calendarField(date: Date, directive: string): [number, number, string] | undefined {
  const weekday = date.getDay();
  const mondayBased = (weekday + 6) % 7;
  switch (directive) {
    case "j":
      return [dayOfYear(date) + 1, 3, "0"];
    case "u":
      return [mondayBased + 1, 1, "0"];
    case "w":
      return [weekday, 1, "0"];
    case "U":
      return [Math.floor((dayOfYear(date) + 7 - weekday) / 7), 2, "0"];
    case "W":
      return [Math.floor((dayOfYear(date) + 7 - mondayBased) / 7), 2, "0"];
    case "V":
      return [isoWeek(date).week, 2, "0"];
    case "G":
      return [isoWeek(date).year, 1, "0"];
    case "g":
      return [isoWeek(date).year % 100, 2, "0"];
    default:
      return undefined;
  }
}

function textField(date: Date, directive: string): string | undefined {
  const day = days[date.getDay()]!;
  const month = months[date.getMonth()]!;
  const half = date.getHours() < 12 ? "AM" : "PM";
  const fields: Readonly<Record<string, string>> = {
    a: day.slice(0, 3),
    A: day,
    b: month.slice(0, 3),
    h: month.slice(0, 3),
    B: month,
    p: half,
    P: half.toLowerCase(),
    n: "\n",
    t: "\t",
    z: "",
    Z: "",
    "%": "%",
  };
  return fields[directive];
}

/** Days since 1 January, by calendar and not by hours: a day may have 23 or 25 of them. */
function dayOfYear(date: Date): number {
  const year = date.getFullYear();
  const today = Date.UTC(year, date.getMonth(), date.getDate());
  return Math.round((today - Date.UTC(year, 0, 1)) / 86_400_000);
}

/** The ISO week belongs to the year of its Thursday. */
function isoWeek(date: Date): { year: number; week: number } {
  const thursday = new Date(date.getFullYear(), date.getMonth(), date.getDate());
  thursday.setDate(thursday.getDate() + 3 - ((date.getDay() + 6) % 7));
  return { year: thursday.getFullYear(), week: Math.floor(dayOfYear(thursday) / 7) + 1 };
}
