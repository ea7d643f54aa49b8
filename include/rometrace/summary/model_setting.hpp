#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace rometrace {

/// The model that all lines of a summary have in common.
class ModelSetting {
 public:
  /// Compares the member `model` of a line with that of the lines before: all of it but the name, so that nothing that
  /// tells models apart is passed over; what only one of them has differs. A line that has none is let be. Throws Error
  /// naming the field, both values and both places.
  void check(const nlohmann::json& line, const std::string& where);

  /// The first line's, in the order of the schema with what else it has behind; null if no line has one.
  const nlohmann::ordered_json& model() const { return shown_; }

 private:
  nlohmann::json model_;
  nlohmann::ordered_json shown_;
  std::string where_;
};

}  // namespace rometrace
