#include "summary/coverage.hpp"

#include <algorithm>
#include <cstddef>

#include "rometrace/error.hpp"
#include "rometrace/text/input_file.hpp"
#include "summary/json_path.hpp"

namespace rometrace {
namespace {

using nlohmann::json;

constexpr std::int64_t kMostRecords = std::int64_t{1} << 32U;  // half a GiB of bits

[[noreturn]] void refuse(const std::string& where, const std::string& what) {
  throw Error(where + ": " + what + "; expected a line as rometrace writes it");
}

const json& member(const std::string& where, const json& object, const char* name) {
  const auto* value = value_at(object, name);
  if (value == nullptr) refuse(where, std::string("no \"") + name + "\"");
  return *value;
}

std::int64_t number(const std::string& where, const json& object, const char* name) {
  const auto& value = member(where, object, name);
  if (!value.is_number_integer() || value < 0 || value > (std::int64_t{1} << 40)) {
    refuse(where, std::string("\"") + name + "\" is no whole number");
  }
  return value.get<std::int64_t>();
}

}  // namespace

/// The facts files of a header.
struct Coverage::Study {
  std::string name;               ///< of the first file, for messages
  std::vector<bool> records;      ///< those that were in a line
  std::int64_t record_count = 0;  ///< as the header says
  /// By selection. Several headers have the same one where a study was cut into shards.
  std::map<std::string, SelectionSummary> selections;
};

Coverage::Coverage() = default;
Coverage::~Coverage() = default;
Coverage::Coverage(Coverage&&) noexcept = default;
Coverage& Coverage::operator=(Coverage&&) noexcept = default;

void Coverage::begin(const json& header, const std::string& where) {
  end_file();
  const auto facts = header.find("facts");
  if (facts == header.end()) return;
  std::string key, name;
  for (const auto& file : member(where, *facts, "files")) {
    key += member(where, file, "sha256").dump() + " ";
    if (name.empty() && file.contains("name") && file["name"].is_string()) name = file["name"].get<std::string>();
  }
  const auto records = number(where, *facts, "records"), selected = number(where, *facts, "selected");
  if (records > kMostRecords) refuse(where, "more than " + std::to_string(kMostRecords) + " records");
  auto& study = studies_[key];
  if (!study) study = std::make_unique<Study>();
  study->name = name;
  study->record_count = records;
  study_ = study.get();
  // The files' names may differ where a study was run at several places.
  json selection = *facts;
  selection.erase("files");
  auto& summary = study->selections[selection.dump()];
  summary.selected = selected;
  if (summary.facts.is_null()) summary.facts = *facts;
  selection_ = &summary;
}

void Coverage::add(const json& line, const std::string& where) {
  if (study_ == nullptr) return;
  const auto record = number(where, member(where, line, "fact"), "record");
  if (record < 1 || record > study_->record_count) {
    refuse(where, "record " + std::to_string(record) + " of " + std::to_string(study_->record_count));
  }
  const auto index = static_cast<std::size_t>(record);
  if (study_->records.size() <= index) study_->records.resize(std::max(index + 1, 2 * study_->records.size()));
  if (study_->records[index]) {
    throw Error(where + ": record " + std::to_string(record) + " of " + label_of(study_->name) +
                " was in a line before; a fact counts once: leave out the file that repeats it, or put the files "
                "together with rometrace merge");
  }
  study_->records[index] = true;
  ++selection_->lines;
}

void Coverage::end_file() {
  study_ = nullptr;
  selection_ = nullptr;
}

std::vector<SelectionSummary> Coverage::selections() const {
  std::vector<SelectionSummary> all;
  for (const auto& [key, study] : studies_) {
    for (const auto& [selection, summary] : study->selections) all.push_back(summary);
  }
  return all;
}

std::vector<std::string> Coverage::warnings() const {
  std::vector<std::string> all;
  for (const auto& [key, study] : studies_) {
    for (const auto& [selection, summary] : study->selections) {
      if (summary.lines >= summary.selected) continue;
      all.push_back(label_of(study->name) + ": " + std::to_string(summary.selected - summary.lines) + " of " +
                    std::to_string(summary.selected) +
                    " facts have no line: a batch is not finished, or a shard's file is missing");
    }
  }
  return all;
}

}  // namespace rometrace
