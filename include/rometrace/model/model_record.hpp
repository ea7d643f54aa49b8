#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

namespace rometrace {

/// An edit that a model has been loaded with.
struct EditMark {
  std::string sha256;                ///< of the edit file
  std::string method;                ///< "rome", "r-rome", "memit"
  std::vector<std::int64_t> layers;  ///< whose MLPs it changes, ascending
  std::int64_t requests = 0;         ///< facts that it rewrites
};

/// The model, as all results record it.
struct ModelRecord {
  std::string name;          ///< as the user gave it; "rometrace-demo" for the one shipped
  std::string architecture;  ///< config.json's
  std::int64_t layers = 0;
  std::int64_t width = 0;
  std::int64_t heads = 0;
  std::int64_t parameters = 0;
  std::string weights_sha256;   ///< see weights_sha256(): of the files, without the edits
  std::vector<EditMark> edits = {};  ///< in the order in which they were applied
};

/// The member `model` of a result: an object without `edits` where there are none.
nlohmann::ordered_json to_json(const ModelRecord& model);

}  // namespace rometrace
