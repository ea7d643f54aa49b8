#include "facts/facts_reader.hpp"

#include <algorithm>
#include <charconv>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "rometrace/error.hpp"
#include "rometrace/text/input_file.hpp"
#include "rometrace/text/json_file.hpp"
#include "rometrace/text/utf8.hpp"

namespace rometrace {
namespace {

using nlohmann::json;

constexpr const char* kSchema = "rometrace/facts/1";
constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";
constexpr std::string_view kLayoutSpace = " \t\r\n";

/// Where the white space at the front of `text` ends.
std::size_t first_text(std::string_view text) {
  return std::min(text.find_first_not_of(kLayoutSpace), text.size());
}

/// The lines of a text, with their numbers, but for those of white space only.
class Lines {
 public:
  struct Line {
    std::int64_t number = 0;
    std::string_view text;
  };

  explicit Lines(std::string_view text) : rest_(text) {}

  std::optional<Line> next() {
    while (!rest_.empty()) {
      const std::size_t end = std::min(rest_.find('\n'), rest_.size());
      const std::string_view line = rest_.substr(0, end);
      rest_.remove_prefix(std::min(end + 1, rest_.size()));
      ++number_;
      if (first_text(line) != line.size()) return Line{number_, line};
    }
    return std::nullopt;
  }

 private:
  std::string_view rest_;
  std::int64_t number_ = 0;
};

/// Whether a text that is no JSON as a whole is JSON Lines: one of its first lines is an object by itself.
bool is_json_lines(std::string_view text) {
  constexpr int kLinesToTry = 10;  // more than one, so that a first line that is torn is only a bad record
  Lines lines(text);
  for (int i = 0; i < kLinesToTry; ++i) {
    const auto line = lines.next();
    if (!line) break;
    if (line->text.front() != '{') continue;
    try {
      parse_json(line->text, "");
      return true;
    } catch (const Error&) {
      continue;
    }
  }
  return false;
}

/// A line's JSON; a message's "line 1" is left out, since `where` names the line.
json parse_line(std::string_view line, const std::string& where) {
  try {
    return parse_json(line, where);
  } catch (const Error& error) {
    const std::string message = error.what();
    const std::string in_line = where + ": line 1, column";
    if (message.compare(0, in_line.size(), in_line) != 0) throw;
    throw Error(where + ", column" + message.substr(in_line.size()));
  }
}

bool is_header_line(const json& value) {
  return value.is_object() && (value.contains("relations") || value.contains("schema")) && !looks_like_record(value);
}

void check_schema(const json& value, const std::string& where) {
  const auto schema = value.find("schema");
  if (schema == value.end() || *schema == kSchema) return;
  throw Error(where + ": schema is " + one_line(schema->dump()) + "; this version reads \"" + kSchema + "\"");
}

/// "an object with "a", "b"", for a layout that is not known.
std::string describe(const json& value) {
  constexpr std::size_t kNames = 6;
  if (!value.is_object() || value.empty()) return one_line(value.dump());
  std::string names;
  std::size_t count = 0;
  for (const auto& [name, ignored] : value.items()) {
    if (count++ == kNames) return "an object with " + names + ", ...";
    names += (names.empty() ? "" : ", ") + in_quotes(name, 40);
  }
  return "an object with " + names;
}

/// A column's name as the layouts write it: "Relation ID" is relation_id.
std::string column_name(std::string_view cell) {
  std::string name;
  const std::size_t begin = first_text(cell);
  for (const char c : cell.substr(begin, std::min(cell.find_last_not_of(kLayoutSpace) + 1, cell.size()) - begin)) {
    name += c == ' ' || c == '-' ? '_' : c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  }
  return name;
}

/// The names of columns that mean something, and whether an empty cell is the same as none, as null is in JSON.
const std::map<std::string, bool, std::less<>>& known_columns() {
  static const auto kColumns = [] {
    std::map<std::string, bool, std::less<>> columns{
        {"subject", false}, {"prompt", true}, {"rephrase_prompt", true}, {"subject_at", true}};
    for (const char* name : kIdNames) columns.emplace(name, true);
    for (const char* name : kRelationNames) columns.emplace(name, true);
    for (const char* name : kObjectNames) columns.emplace(name, true);
    return columns;
  }();
  return kColumns;
}

bool has_any(const std::vector<std::string>& columns, std::initializer_list<const char*> names) {
  return std::any_of(names.begin(), names.end(), [&](const char* name) {
    return std::find(columns.begin(), columns.end(), name) != columns.end();
  });
}

/// The header's columns if the text is CSV with this separator, else none.
std::vector<std::string> columns_of(std::string_view text, char separator) {
  const auto row = CsvReader(text, separator).next();
  if (!row || !row->fault.empty()) return {};
  std::vector<std::string> columns;
  for (const std::string& cell : row->cells) columns.push_back(column_name(cell));
  return has_any(columns, {"subject"}) ? columns : std::vector<std::string>{};
}

/// `text` as a number if it is a whole number as JSON writes it, so that ids from CSV and from JSON are the same.
std::optional<std::int64_t> whole_number(std::string_view text) {
  std::int64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size() || std::to_string(number) != text) return std::nullopt;
  return number;
}

/// A row as the object that the same record would be in JSON. Throws Error.
json record_of(const CsvRow& row, const std::vector<std::string>& columns, const std::string& where) {
  if (!row.fault.empty()) throw Error(where + ": " + row.fault);
  if (row.cells.size() != columns.size()) {
    throw Error(where + ": has " + std::to_string(row.cells.size()) + " cells; the header has " +
                std::to_string(columns.size()));
  }
  json record = json::object();
  for (std::size_t i = 0; i < columns.size(); ++i) {
    const auto column = known_columns().find(columns[i]);
    if (column == known_columns().end()) continue;
    const std::string& cell = row.cells[i];
    if (find_invalid_utf8(cell)) throw Error(where + ": " + columns[i] + " is not UTF-8: " + in_quotes(cell));
    if (cell.empty() && column->second) continue;
    const bool is_id = has_any({columns[i]}, kIdNames);
    const auto number = is_id ? whole_number(cell) : std::nullopt;
    record[columns[i]] = number ? json(*number) : json(cell);
  }
  return record;
}

}  // namespace

void FactsReader::refuse(const std::string& found) const {
  throw Error(
      label_ + ": found " + found +
      "; expected facts: known_1000.json of ROME, CounterFact, relation files (\"prompt_templates\" and "
      "\"samples\"), rometrace's own (\"relations\" and \"facts\") or tuples (\"subject\", \"prompt\"), as JSON "
      "or JSON Lines, or CSV or TSV with a header that names subject and prompt");
}

void FactsReader::read(std::string_view text, const std::string& label, FactsSource source) {
  label_ = label;
  layout_.clear();
  format_ = "JSON";
  const std::int64_t before = count();
  if (text.substr(0, kByteOrderMark.size()) == kByteOrderMark) text.remove_prefix(kByteOrderMark.size());
  const std::size_t first = first_text(text);
  if (first == text.size()) throw Error(label_ + ": is empty");

  if (text[first] == '{' || text[first] == '[') {
    std::optional<json> value;
    try {
      value = parse_json(text, label_);
    } catch (const Error&) {
      if (text[first] != '{' || !is_json_lines(text)) throw;
    }
    if (value) {
      read_json(*value);
    } else {
      read_json_lines(text);
    }
  } else if (!read_csv(text)) {
    refuse("a first line of " + in_quotes(Lines(text).next()->text));
  }
  source.records = count() - before;
  if (source.records == 0) throw Error(label_ + ": has no records; expected one or more, each with a \"subject\"");
  source.layout = layout_ + ", " + format_;
  facts_.sources.push_back(std::move(source));
}

void FactsReader::read_json(const json& value) {
  if (value.is_array()) return read_list(value);
  check_schema(value, label_);
  if (const auto facts = value.find("facts"); facts != value.end()) {
    if (!facts->is_array())
      throw Error(label_ + ": facts is " + one_line(facts->dump()) + "; expected a list of records");
    layout_ = kSchema;
    if (value.contains("relations")) define_relations(value["relations"], label_);
    return read_list(*facts);
  }
  if (is_relation_file(value)) return read_samples(value, label_, label_ + ", record ");
  if (looks_like_record(value)) return read_element(value, label_ + ", record 1");
  if (value.contains("schema")) throw Error(label_ + ": has no \"facts\"; expected a list of records there");
  refuse(describe(value));
}

void FactsReader::read_list(const json& list) {
  if (!list.empty() && std::none_of(list.begin(), list.end(), &looks_like_record)) {
    refuse("a list that begins with " + describe(list.front()));
  }
  std::int64_t number = 0;
  for (const json& record : list) read_element(record, label_ + ", record " + std::to_string(++number));
}

void FactsReader::read_json_lines(std::string_view text) {
  format_ = "JSON Lines";
  Lines lines(text);
  bool has_record = false;
  std::string first;
  while (const auto line = lines.next()) {
    const std::string where = label_ + ", line " + std::to_string(line->number);
    json value;
    try {
      value = parse_line(line->text, where);
    } catch (const Error& error) {
      add_bad(where, error.what());
      continue;
    }
    if (is_header_line(value)) {
      check_schema(value, where);
      layout_ = kSchema;
      if (value.contains("relations")) define_relations(value["relations"], where);
      continue;
    }
    if (first.empty()) {
      if (value.is_object()) check_schema(value, where);  // a line of results has a subject and a prompt too
      first = describe(value);
    }
    has_record |= looks_like_record(value);
    read_element(value, where);
  }
  if (!first.empty() && !has_record) refuse("lines of JSON that begin with " + first);
}

bool FactsReader::read_csv(std::string_view text) {
  std::vector<std::string> columns;
  char separator = ',';
  for (const char candidate : {',', '\t', ';'}) {
    std::vector<std::string> found = columns_of(text, candidate);
    if (found.size() > columns.size()) {
      columns = std::move(found);
      separator = candidate;
    }
  }
  if (columns.empty()) return false;
  format_ = separator == '\t' ? "TSV" : "CSV";
  std::set<std::string_view> names;
  for (const std::string& column : columns) {
    if (known_columns().contains(column) && !names.insert(column).second) {
      throw Error(label_ + ": the header names \"" + column + "\" twice");
    }
  }
  if (need_ == Need::kWordings && !has_any(columns, {"prompt"}) && !has_any(columns, kRelationNames)) {
    throw Error(label_ + R"(: the header names "subject" but no "prompt" and no "relation")");
  }
  CsvReader rows(text, separator);
  rows.next();
  while (const auto row = rows.next()) {
    const std::string where = label_ + ", line " + std::to_string(row->line);
    try {
      read_element(record_of(*row, columns, where), where);
    } catch (const Error& error) {
      add_bad(where, error.what());
    }
  }
  return true;
}

void FactsReader::define_relations(const json& relations, const std::string& where) {
  if (!relations.is_object()) {
    throw Error(where + ": relations is " + one_line(relations.dump()) + "; expected an object");
  }
  for (const auto& [name, relation] : relations.items()) relations_[name] = read_relation(relation, name);
}

void FactsReader::read_samples(const json& file, const std::string& where, const std::string& sample_where) {
  const json name = file.value("name", json());
  if (!name.is_string() || name.get_ref<const std::string&>().empty()) {
    throw Error(where + ": name is " + one_line(name.dump()) + "; expected the relation's name");
  }
  const json& samples = file["samples"];
  if (!samples.is_array()) throw Error(where + ": samples is " + one_line(samples.dump()) + "; expected a list");
  if (samples.empty()) throw Error(where + ": has no samples");
  if (layout_.empty()) layout_ = layout_of_record(file);
  const Relations relations{{name.get<std::string>(), read_relation_file(file, name.get<std::string>())}};
  std::int64_t number = 0;
  for (json sample : samples) {
    if (sample.is_object()) sample["relation"] = name;
    add(sample, relations, sample_where + std::to_string(++number));
  }
}

void FactsReader::read_element(const json& record, const std::string& where) {
  if (!is_relation_file(record)) {
    if (layout_.empty()) layout_ = layout_of_record(record);
    return add(record, relations_, where);
  }
  try {
    read_samples(record, where, where + ", sample ");
  } catch (const Error& error) {
    add_bad(where, error.what());
  }
}

void FactsReader::add(const json& record, const Relations& relations, const std::string& where) {
  try {
    Fact fact = read_fact(record, relations, need_, where);
    fact.record = count() + 1;
    fact.where = where;
    facts_.records.emplace_back(std::move(fact));
  } catch (const Error& error) {
    add_bad(where, error.what(), given_id(record));
  }
}

void FactsReader::add_bad(const std::string& where, std::string message, std::optional<GivenId> id) {
  BadRecord bad{count() + 1, where, std::nullopt, false, std::move(message)};
  if (id) {
    bad.id = std::move(id->text);
    bad.id_is_number = id->is_number;
  }
  facts_.records.emplace_back(std::move(bad));
}

}  // namespace rometrace
