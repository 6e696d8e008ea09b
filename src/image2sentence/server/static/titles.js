// What a picture is called.

const TITLES = ["title", "name", "caption", "label"];

// The metadata column that holds its title; undefined where it has none.
export const titleColumn = ({ metadata }) => TITLES.find((name) => typeof metadata[name] === "string" && metadata[name]);

export const titleOf = (picture) => picture.metadata[titleColumn(picture)];

// Its title, else its file's name.
export const nameOf = (picture) => titleOf(picture) || picture.name || `picture ${picture.id}`;
