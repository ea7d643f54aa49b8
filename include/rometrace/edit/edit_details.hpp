#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "rometrace/model/model_record.hpp"

namespace rometrace {

inline constexpr const char* kEditSchema = "rometrace/edit/1";

/// The text whose tokens' keys the second moment is of.
struct EditMoment {
  std::string name;    ///< of the text, without its folder
  std::string sha256;  ///< of its bytes
  std::int64_t tokens = 0;
};

/// How an edit came about: all of it but its matrices.
struct EditDetails {
  std::string method;                  ///< "rome", "r-rome", "memit"
  std::vector<std::string> templates;  ///< each with {} where the prompt stands
  std::optional<std::uint64_t> seed;   ///< of the generator that made them; none: they were given
  nlohmann::ordered_json hyperparameters = nlohmann::ordered_json::object();
  std::optional<EditMoment> moment;  ///< none: the edit was made without it
  ModelRecord model;                 ///< with weights_sha256, without edits
  std::vector<std::string> made_on;  ///< SHA-256 of the edit files that the model had when this one was made
  nlohmann::ordered_json requests = nlohmann::ordered_json::array();  ///< [n] objects: prompt, subject, objects, ...
  nlohmann::ordered_json perplexity;  ///< of a fixed text, {text, before, after}; null: not measured
  nlohmann::ordered_json seconds;     ///< that steps of the edit took, by name; null: not known
};

}  // namespace rometrace
