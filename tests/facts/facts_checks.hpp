#pragma once

#include <cstddef>
#include <filesystem>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "checks.hpp"
#include "files.hpp"
#include "rometrace/facts/facts.hpp"

namespace rometrace::testing {

/// What `read_facts` makes of one file called "facts" with this content.
inline Facts read_text_as_facts(std::string_view content) {
  const TemporaryFolder folder;
  const std::vector<std::filesystem::path> files{folder.write("facts", content)};
  return read_facts(files);
}

/// The record at `index`, which must be a good one.
inline const Fact& fact_at(const Facts& facts, std::size_t index) {
  REQUIRE(index < facts.records.size());
  if (const auto* bad = std::get_if<BadRecord>(&facts.records[index])) FAIL(bad->message);
  return std::get<Fact>(facts.records[index]);
}

/// The record at `index`, which must be a bad one.
inline const BadRecord& bad_at(const Facts& facts, std::size_t index) {
  REQUIRE(index < facts.records.size());
  REQUIRE(std::holds_alternative<BadRecord>(facts.records[index]));
  return std::get<BadRecord>(facts.records[index]);
}

inline std::size_t count_bad(const Facts& facts) {
  std::size_t count = 0;
  for (const auto& record : facts.records) count += std::holds_alternative<BadRecord>(record) ? 1 : 0;
  return count;
}

inline std::vector<std::string> ids_of(const Facts& facts) {
  std::vector<std::string> ids;
  for (const auto& record : facts.records) {
    const auto* fact = std::get_if<Fact>(&record);
    ids.push_back(fact != nullptr ? fact->id : "(bad)");
  }
  return ids;
}

/// The wordings in order; those that are held out begin with "(held out) ".
inline std::vector<std::string> prompts_of(const Fact& fact) {
  std::vector<std::string> prompts;
  for (const Wording& wording : fact.wordings) {
    prompts.push_back((wording.held_out ? "(held out) " : "") + wording.prompt);
  }
  return prompts;
}

}  // namespace rometrace::testing
