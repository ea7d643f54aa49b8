#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "rometrace/summary/selection_summary.hpp"

namespace rometrace {

/// Which facts of the batches that headers tell of the lines have: none twice, and all but those that warnings() tells
/// of. Lines without a header before them in their file are not looked at. Takes a bit a fact.
class Coverage {
 public:
  Coverage();
  ~Coverage();
  Coverage(Coverage&&) noexcept;
  Coverage& operator=(Coverage&&) noexcept;

  /// A header, whose lines follow. `where` opens messages. Throws Error: a field that is missing.
  void begin(const nlohmann::json& header, const std::string& where);

  /// A fact's line. Throws Error: no record, one that the header does not have, one that was in a line before.
  void add(const nlohmann::json& line, const std::string& where);

  /// Lines that follow have no header before them.
  void end_file();

  std::vector<SelectionSummary> selections() const;
  std::vector<std::string> warnings() const;  ///< one line each

 private:
  struct Study;

  std::map<std::string, std::unique_ptr<Study>> studies_;  // by facts files
  Study* study_ = nullptr;                                 // of the lines at hand; null for lines without a header
  SelectionSummary* selection_ = nullptr;
};

}  // namespace rometrace
