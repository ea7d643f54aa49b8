#include "rometrace/report/result_file.hpp"

#include <algorithm>
#include <array>
#include <cstddef>
#include <numeric>
#include <utility>

#include "rometrace/error.hpp"
#include "rometrace/text/input_file.hpp"
#include "rometrace/text/json_file.hpp"

namespace rometrace {
namespace {

using ResultJson = nlohmann::ordered_json;

constexpr std::string_view kTraceSchema = "rometrace/trace/1";
constexpr std::string_view kHeaderSchema = "rometrace/batch/1";
constexpr std::size_t kLongestObject = std::size_t{1} << 28U;
constexpr const char* kExpected = "; expected traces, as rometrace --prompt and --facts write them";

/// What else rometrace writes, and what is to be done with it.
struct OtherResult {
  std::string_view schema;  // without its number
  std::string_view what;
  std::string_view advice;
};
constexpr std::array kOtherResults = {
    OtherResult{"rometrace/probe/", "results of a probe", "rometrace summary shows what is said and known"},
    OtherResult{"rometrace/edited-fact/", "results of edits", "rometrace summary averages them"},
    OtherResult{"rometrace/summary/", "a summary", "name the results that it was made of; rometrace show draws it"},
    OtherResult{"rometrace/edit-summary/", "a summary of edits", "rometrace summary of the results shows it again"},
    OtherResult{"rometrace/probe-summary/", "a summary of a probe", "rometrace summary of the results shows it again"},
    OtherResult{"rometrace/calibration/", "a calibration", "rometrace calibrate shows it again"},
    OtherResult{"rometrace/edit/", "an edit", "rometrace edit --show prints what it is"},
    OtherResult{"rometrace/moments/", "second moments", "they are for rometrace edit --moments"},
    OtherResult{"rometrace/facts/", "facts", "rometrace --facts traces them"},
    OtherResult{"rometrace/models/", "the list of models", "rometrace models shows it again"},
};

// Changes of single bytes that make `a` of `b`.
std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 0; i < a.size(); ++i) {
    std::size_t diagonal = std::exchange(row[0], i + 1);
    for (std::size_t j = 0; j < b.size(); ++j) {
      const auto replaced = diagonal + (a[i] == b[j] ? 0 : 1);
      diagonal = row[j + 1];
      row[j + 1] = std::min({replaced, diagonal + 1, row[j] + 1});
    }
  }
  return row.back();
}

// "; there is "miles-davis"", the ids most like it; or the first few where none is like it.
std::string ids_like(const std::string& id, const std::vector<std::string>& all) {
  constexpr std::size_t kMostShown = 3, kLongestCompared = 200;
  if (all.empty()) return "; no record of it has one";
  std::vector<std::pair<std::size_t, std::string>> like;
  for (const auto& other : all) {
    if (id.size() > kLongestCompared || other.size() > kLongestCompared) continue;
    const bool is_part = !id.empty() && other.find(id) != std::string::npos;
    const auto distance = is_part ? 0 : edit_distance(id, other);
    if (distance <= id.size() / 3) like.emplace_back(distance, other);
  }
  std::stable_sort(like.begin(), like.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  std::string text;
  const auto count = like.empty() ? all.size() : like.size();
  for (std::size_t i = 0; i < std::min(count, kMostShown); ++i) {
    text += (text.empty() ? "" : ", ") + in_quotes(like.empty() ? all[i] : like[i].second, 60);
  }
  if (count > kMostShown) text += " and " + std::to_string(count - kMostShown) + " more";
  return (like.empty() ? "; it has " : "; there is ") + text;
}

/// Whether no bracket lies deeper than JSON files are read.
bool is_shallow(std::string_view text) {
  std::size_t depth = 0;
  bool in_string = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') ++i;
      in_string = c != '"';
    } else if (c == '"') {
      in_string = true;
    } else if (c == '{' || c == '[') {
      if (++depth > kMaxJsonDepth) return false;
    } else if ((c == '}' || c == ']') && depth > 0) {
      --depth;
    }
  }
  return true;
}

/// The object that `text` is, its names in their order; nothing for all else.
std::optional<ResultJson> object_of(std::string_view text) {
  if (text.find('\0') != std::string_view::npos || !is_shallow(text)) return std::nullopt;
  auto json = ResultJson::parse(text.begin(), text.end(), nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) return std::nullopt;  // what is no JSON is "discarded"
  return json;
}

std::string schema_of(const ResultJson& json) {
  const auto schema = json.find("schema");
  return schema != json.end() && schema->is_string() ? schema->get<std::string>() : "";
}

/// Edit files are safetensors: a header of JSON behind its length.
bool is_edit_file(std::string_view text) {
  return text.size() > 8 && text[8] == '{' && text.find("rometrace/edit/") != std::string_view::npos;
}

[[noreturn]] void refuse_text(std::string_view text, const std::string& label, std::int64_t line) {
  if (line == 1 && is_edit_file(text)) {
    throw Error(label + ": an edit file" + kExpected + "; rometrace edit --show prints what it is");
  }
  const auto found = [&]() -> std::string {
    try {
      parse_json(text, label, RepeatedNames::kLastCounts, {line, 1});
    } catch (const Error& error) {
      return error.what();
    }
    return label + ": line " + std::to_string(line) + ": no JSON object";
  };
  throw Error(found() + kExpected);
}

}  // namespace

ResultFile::ResultFile(const std::string& name, std::stop_token stop)
    : name_(name), lines_(name, std::move(stop)), first_(read_first()), schema_(schema_of(first_)) {}

/// An object that is printed over many lines is the whole file; one on a line need not be.
ResultJson ResultFile::read_first() {
  std::string text;
  while (const auto line = lines_.next()) {
    if (text.empty() && is_blank(*line)) continue;
    if (text.empty()) {
      line_ = lines_.number();
      if (auto json = object_of(*line)) return *std::move(json);
      text = *line;
      const bool goes_on = line->find_first_not_of(" \t\r") == line->find('{') && line->find('\0') == line->npos;
      if (!goes_on) break;
      continue;
    }
    if (text.size() + line->size() > kLongestObject) {
      throw Error(lines_.label() + ", line " + std::to_string(line_) + ": no JSON object within 256 MiB" + kExpected);
    }
    text += '\n';
    text += *line;
  }
  if (text.empty()) throw Error(lines_.label() + ": is empty" + kExpected);
  if (auto json = object_of(text)) return *std::move(json);
  refuse_text(text, lines_.label(), line_);
}

std::optional<ResultJson> ResultFile::read_line() {
  while (const auto text = lines_.next()) {
    if (is_blank(*text)) continue;
    line_ = lines_.number();
    if (auto json = object_of(*text)) return json;
    const std::string damaged(*text);  // the view ends with the next line
    while (const auto rest = lines_.next()) {
      if (!is_blank(*rest)) refuse_text(damaged, lines_.label(), line_);
    }
    torn_ = lines_.label() + ": line " + std::to_string(line_) + " is cut short; it was left out";
    break;
  }
  return std::nullopt;
}

std::optional<ResultRecord> ResultFile::next() {
  for (;;) {
    auto json = std::exchange(first_taken_, true) ? read_line() : std::optional(std::exchange(first_, nullptr));
    if (!json) return std::nullopt;
    const auto schema = schema_of(*json);
    if (schema == kTraceSchema) {
      const auto fact = json->find("fact");
      if (fact == json->end()) header_.reset();  // a prompt's by itself, behind a batch
      if (fact != json->end() && fact->is_object() && fact->contains("id")) {
        if (const auto& id = fact->at("id"); id.is_string()) ids_.push_back(id.get<std::string>());
      }
      return ResultRecord{*std::move(json), lines_.label() + ", line " + std::to_string(line_), line_};
    }
    if (schema != kHeaderSchema) refuse(schema);
    const auto command = json->find("command");
    if (command != json->end() && *command == "probe") refuse("rometrace/probe/1");
    if (command != json->end() && *command == "edit") refuse("rometrace/edited-fact/1");
    header_ = std::move(json);
  }
}

const ResultJson* ResultFile::settings_of(const ResultRecord& record) const {
  if (header_) return &*header_;
  const auto settings = record.json.find("settings");
  return settings == record.json.end() ? nullptr : &*settings;
}

std::string ResultFile::without_id(const std::string& id) const {
  return label() + ": no record has the id " + in_quotes(id, 60) + ids_like(id, ids_);
}

void ResultFile::refuse(const std::string& schema) const {
  const auto where = lines_.label() + ", line " + std::to_string(line_) + ": ";
  if (schema.empty()) throw Error(where + "an object without a schema of rometrace" + kExpected);
  const auto other = std::find_if(kOtherResults.begin(), kOtherResults.end(),
                                  [&](const auto& each) { return schema.starts_with(each.schema); });
  if (other != kOtherResults.end()) {
    throw Error(where + std::string(other->what) + " (" + one_line(schema, 60) + ")" + kExpected + "; " +
                std::string(other->advice));
  }
  if (schema.starts_with("rometrace/trace/") || schema.starts_with("rometrace/batch/")) {
    throw Error(where + "of the schema " + in_quotes(schema, 60) + ", of another version of rometrace; expected " +
                std::string(kTraceSchema) + " and " + std::string(kHeaderSchema) +
                "; read it with the version that wrote it, or trace again");
  }
  throw Error(where + "of the schema " + in_quotes(schema, 60) + kExpected);
}

}  // namespace rometrace
