#pragma once

#include <cstddef>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

namespace rometrace {

/// A JSON value that grows with a parser's events, one after another.
class JsonTree {
 public:
  /// A value that holds no others, or nothing more.
  void add(nlohmann::json value) { place(std::move(value)); }

  /// An object or a list that the next values go into.
  void open(nlohmann::json container) { open_.push_back(&place(std::move(container))); }

  void close() { open_.pop_back(); }

  /// The name of the next value in the object that is open.
  void name(const std::string& name) { slot_ = &(*open_.back())[name]; }

  const nlohmann::json& innermost() const { return *open_.back(); }  ///< of what is open
  std::size_t depth() const { return open_.size(); }                 ///< how much is open

  nlohmann::json take() { return std::move(root_); }

 private:
  nlohmann::json& place(nlohmann::json value) {
    if (open_.empty()) return root_ = std::move(value);
    auto& parent = *open_.back();
    if (parent.is_array()) return parent.emplace_back(std::move(value));
    return *slot_ = std::move(value);
  }

  nlohmann::json root_;
  std::vector<nlohmann::json*> open_;  // from the root inwards; a container does not move while it is open
  nlohmann::json* slot_ = nullptr;     // where the value of the name just read goes
};

}  // namespace rometrace
