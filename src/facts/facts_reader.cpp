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

/// The first byte of `text` at or behind `begin` that is no white space; nothing if the text ends first.
std::optional<std::size_t> find_text(TextStream& text, std::size_t begin = 0) {
  for (;;) {
    if (const auto found = text.text().find_first_not_of(kLayoutSpace, begin); found != std::string_view::npos) {
      return found;
    }
    begin = text.text().size();
    if (!text.more()) return std::nullopt;
  }
}

/// Reads the whole text, which is not dropped.
std::string_view read_all(TextStream& text) {
  while (text.more()) {
  }
  return text.text();
}

/// The lines of a text, with their numbers, but for those of white space only. What was read before a line is dropped
/// from the text with the call after it.
class Lines {
 public:
  struct Line {
    std::int64_t number = 0;
    std::string_view text;
  };
  enum class Then { kDrop, kKeep };

  explicit Lines(TextStream& text, Then then = Then::kDrop) : text_(&text), then_(then) {}

  std::optional<Line> next() {
    if (then_ == Then::kDrop) text_->drop(std::exchange(at_, 0));
    while (at_ < text_->text().size() || text_->more()) {
      std::size_t end = at_;
      while ((end = text_->text().find('\n', end)) == std::string_view::npos) {
        end = text_->text().size();
        if (!text_->more()) break;
      }
      const auto line = text_->text().substr(at_, end - at_);
      at_ = std::min(end + 1, text_->text().size());
      ++number_;
      if (first_text(line) != line.size()) return Line{number_, line};
    }
    return std::nullopt;
  }

 private:
  TextStream* text_;
  Then then_;
  std::size_t at_ = 0;
  std::int64_t number_ = 0;
};

bool is_value(std::string_view text) {
  try {
    parse_json(text, "");
    return true;
  } catch (const Error&) {
    return false;
  }
}

/// Whether a text that is no JSON as a whole is JSON Lines: one of its first lines is an object by itself.
bool is_json_lines(TextStream& text) {
  constexpr int kLinesToTry = 10;  // more than one, so that a first line that is torn is only a bad record
  Lines lines(text, Lines::Then::kKeep);
  for (int i = 0; i < kLinesToTry; ++i) {
    const auto line = lines.next();
    if (!line) break;
    if (line->text.front() == '{' && is_value(line->text)) return true;
  }
  return false;
}

/// Whether the first line is a JSON value by itself, and others follow it: then the whole is none, and need not be read
/// to know that.
bool is_json_before_more(TextStream& text) {
  Lines lines(text, Lines::Then::kKeep);
  const auto line = lines.next();
  if (!line || line->text.front() != '{') return false;
  const auto begin = static_cast<std::size_t>(line->text.data() - text.text().data()), size = line->text.size();
  return lines.next() && is_value(text.text().substr(begin, size));
}

/// Cuts a JSON list into its elements, and holds one at a time.
class ListElements {
 public:
  /// `text` begins, behind white space, with "[".
  explicit ListElements(TextStream& text) : text_(&text) { pass(*find_text(text) + 1); }

  /// The next element; nothing behind the last. Throws Error where the text is no JSON, as parse_json() would for the
  /// whole of it.
  std::optional<json> next() {
    if (ended_) return std::nullopt;
    const auto first = find_text(*text_);
    if (count_ == 0 && first && text_->text()[*first] == ']') {
      pass(*first + 1);
      return end();
    }
    const std::size_t size = find_end(first.value_or(text_->text().size()));
    const auto element = text_->text().substr(0, size);
    std::optional<json> value;
    if (size < text_->text().size() && (text_->text()[size] == ',' || text_->text()[size] == ']')) {
      try {
        value = parse_json(element, text_->label(), RepeatedNames::kLastCounts, place_);
      } catch (const Error&) {  // said below, as of a part of a list
      }
    }
    if (!value) refuse(text_->text().substr(0, size + 1));
    const bool is_last = text_->text()[size] == ']';
    pass(size + 1);
    ++count_;
    if (is_last) end();
    return value;
  }

 private:
  void pass(std::size_t bytes) {
    place_.pass(text_->text().substr(0, bytes));
    text_->drop(bytes);
  }

  /// Where the element that begins at `at` ends: at a comma or a bracket that closes what it did not open, else with
  /// the text.
  std::size_t find_end(std::size_t at) {
    std::size_t depth = 1;  // of the list itself
    bool in_string = false;
    for (;; ++at) {
      if (at == text_->text().size() && !text_->more()) return at;
      const char c = text_->text()[at];
      if (in_string) {
        if (c == '"') in_string = false;
        if (c == '\\') ++at;
        if (at == text_->text().size() && !text_->more()) return at;
      } else if (c == '"') {
        in_string = true;
      } else if (c == '{' || c == '[') {
        if (++depth > kMaxJsonDepth) return at;
      } else if (c == '}' || c == ']') {
        if (--depth == 0) return at;
      } else if (c == ',' && depth == 1) {
        return at;
      }
    }
  }

  std::optional<json> end() {
    ended_ = true;
    if (find_text(*text_)) refuse(read_all(*text_));
    return std::nullopt;
  }

  /// Throws what the parser has against `part`, which stands here.
  [[noreturn]] void refuse(std::string_view part) {
    const std::string before = ended_ ? "[]" : count_ == 0 ? "[" : "[0,";
    auto place = place_;
    place.column -= static_cast<std::int64_t>(before.size());
    try {
      parse_json(before + std::string(part), text_->label(), RepeatedNames::kLastCounts, place);
    } catch (const Error& error) {
      std::string message = error.what();
      const std::string quote = "last read: '", invented = ended_ ? "[]" : "0,";
      if (const auto at = message.find(quote + invented); at != std::string::npos && before != "[") {
        message.erase(at + quote.size(), invented.size());
      }
      throw Error(message);
    }
    throw Error(text_->label() + ": not JSON");  // what makes a part wrong makes it wrong there too
  }

  TextStream* text_;
  TextPlace place_;
  std::int64_t count_ = 0;
  bool ended_ = false;
};

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
    std::map<std::string, bool, std::less<>> columns{{"subject", false},
                                                     {"prompt", true},
                                                     {"subject_at", true},
                                                     {"rephrase_prompt", true},
                                                     {"locality_prompt", true}};
    for (const char* name : kIdNames) columns.emplace(name, true);
    for (const char* name : kRelationNames) columns.emplace(name, true);
    for (const char* name : kObjectNames) columns.emplace(name, true);
    for (const char* name : kNewObjectNames) columns.emplace(name, true);
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
std::vector<std::string> columns_of(TextStream& text, char separator) {
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

void FactsReader::read(TextStream& text, FactsSource source) {
  label_ = text.label();
  layout_.clear();
  format_ = "JSON";
  const std::int64_t before = count();
  source.layout = "not read";
  if (!is_full()) {
    read_text(text);
    if (count() == before) {
      throw Error(label_ + ": has no records; expected one or more, each with a \"subject\"");
    }
    source.layout = layout_ + ", " + format_;
  }
  source.records = count() - before;
  source.sha256 = text.sha256();
  facts_.sources.push_back(std::move(source));
}

void FactsReader::read_text(TextStream& text) {
  if (text.text().starts_with(kByteOrderMark)) text.drop(kByteOrderMark.size());
  const auto first = find_text(text);
  if (!first) throw Error(label_ + ": is empty");
  if (text.text()[*first] == '[') return read_list(text);
  if (text.text()[*first] == '{') {
    if (is_json_before_more(text)) return read_json_lines(text);
    // A value of many lines, or lines of which the first is torn: only the whole tells.
    std::optional<json> value;
    try {
      value = parse_json(read_all(text), label_);
    } catch (const Error&) {
      if (!is_json_lines(text)) throw;
    }
    return value ? read_json(*value) : read_json_lines(text);
  }
  if (!read_csv(text)) refuse("a first line of " + in_quotes(Lines(text).next()->text));
}

void FactsReader::read_json(const json& value) {
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
  auto element = list.begin();
  read_elements([&] { return element == list.end() ? std::nullopt : std::optional<json>(*element++); });
}

void FactsReader::read_list(TextStream& text) {
  ListElements elements(text);
  read_elements([&] { return elements.next(); });
}

void FactsReader::read_elements(const std::function<std::optional<json>()>& next) {
  std::int64_t number = 0;
  bool has_record = false;
  std::string first;
  while (!is_full() || !has_record) {
    const auto record = next();
    if (!record) break;
    if (++number == 1) first = describe(*record);
    has_record |= looks_like_record(*record);
    read_element(*record, label_ + ", record " + std::to_string(number));
  }
  if (number > 0 && !has_record) refuse("a list that begins with " + first);
}

void FactsReader::read_json_lines(TextStream& text) {
  format_ = "JSON Lines";
  Lines lines(text);
  bool has_record = false;
  std::string first;
  while (!is_full() || !has_record) {
    const auto line = lines.next();
    if (!line) break;
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

bool FactsReader::read_csv(TextStream& text) {
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
  if (need_ != Need::kSubject && !has_any(columns, {"prompt"}) && !has_any(columns, kRelationNames)) {
    throw Error(label_ + R"(: the header names "subject" but no "prompt" and no "relation")");
  }
  CsvReader rows(text, separator);
  rows.next();
  while (!is_full()) {
    const auto row = rows.next();
    if (!row) break;
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
    if (is_full()) break;
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
    if (is_beyond()) {
      fact.wordings = {};
      fact.object.reset();
      fact.remark.clear();
    } else {
      fact.where = where;
    }
    facts_.records.emplace_back(std::move(fact));
  } catch (const Error& error) {
    add_bad(where, error.what(), given_id(record));
  }
}

void FactsReader::add_bad(const std::string& where, std::string message, std::optional<GivenId> id) {
  BadRecord bad{count() + 1, "", std::nullopt, false, ""};
  if (!is_beyond()) {
    bad.where = where;
    bad.message = std::move(message);
  }
  if (id) {
    bad.id = std::move(id->text);
    bad.id_is_number = id->is_number;
  }
  facts_.records.emplace_back(std::move(bad));
}

}  // namespace rometrace
