#include "rometrace/study/facts.hpp"

#include <nlohmann/json.hpp>
#include <utility>

#include "rometrace/error.hpp"
#include "rometrace/text/input_file.hpp"
#include "rometrace/text/json_file.hpp"

namespace rometrace {
namespace {

using nlohmann::json;

constexpr const char* kSchema = "rometrace/facts/1";

/// The list of records in either layout.
json take_records(json file, const std::string& where) {
  if (file.is_object()) {
    if (const auto schema = file.find("schema"); schema != file.end() && *schema != kSchema) {
      throw Error(where + ": schema is " + one_line(schema->dump()) + "; this version reads \"" + kSchema + "\"");
    }
    if (!file.contains("facts")) throw Error(where + ": has no \"facts\"; expected a list of records there");
    json facts = std::move(file["facts"]);
    file = std::move(facts);
  }
  if (!file.is_array()) throw Error(where + ": expected a list of records, found " + one_line(file.dump()));
  if (file.empty()) throw Error(where + ": has no records; expected one or more, each with a \"subject\"");
  return file;
}

/// "facts.json, record 17 (known_id 16)"; records count from 1.
std::string label_of_record(const json& record, std::size_t number, const std::string& where) {
  std::string label = where + ", record " + std::to_string(number);
  if (!record.is_object()) return label;
  for (const char* name : {"id", "known_id", "case_id"}) {
    if (const auto id = record.find(name); id != record.end()) {
      return label + " (" + name + " " + one_line(id->dump(), 40) + ")";
    }
  }
  return label;
}

std::string read_subject(const json& record, const std::string& where) {
  if (!record.is_object())
    throw Error(where + ": expected an object with a \"subject\", found " + one_line(record.dump()));
  const auto subject = record.find("subject");
  if (subject == record.end()) throw Error(where + ": has no \"subject\"");
  if (!subject->is_string()) throw Error(where + ": subject is " + one_line(subject->dump()) + "; expected a string");
  auto text = subject->get<std::string>();
  if (text.empty()) throw Error(where + ": subject is empty");
  return text;
}

}  // namespace

std::vector<std::string> read_subjects(const std::filesystem::path& facts_json) {
  const std::string where = label_of(facts_json);
  const json records = take_records(parse_json_file(facts_json), where);
  std::vector<std::string> subjects;
  subjects.reserve(records.size());
  for (const json& record : records) {
    subjects.push_back(read_subject(record, label_of_record(record, subjects.size() + 1, where)));
  }
  return subjects;
}

}  // namespace rometrace
