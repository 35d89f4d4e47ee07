// Opened as a file, a page may not fetch others, so search lists titles and sections without excerpts.
if (location.protocol === "file:") DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;
