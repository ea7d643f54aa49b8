#pragma once

#include <algorithm>
#include <cstdint>
#include <initializer_list>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "rometrace/error.hpp"
#include "rometrace/model/weight_file.hpp"
#include "text/gguf_header.hpp"

// What the architectures of GGUF files share: the keys of a file, and what they say under the names that Llama's
// config.json has for it.

namespace rometrace::gguf {

using nlohmann::json;
using Tensors = std::span<const TensorView>;

// What angles are divided by: of Llama 3.1 and later, and of Phi 3.
constexpr std::string_view kDivisors = "rope_freqs.weight";
constexpr std::string_view kShortDivisors = "rope_factors_short.weight", kLongDivisors = "rope_factors_long.weight";

/// The keys of a file's architecture, "llama.block_count" as "block_count". Whoever asks for one has it noted.
class Keys {
 public:
  Keys(const GgufHeader& header, std::string architecture) : header_(header), prefix_(std::move(architecture) + ".") {}

  const std::string& where() const { return header_.where(); }
  bool has(const std::string& name) { return header_.has(full(name)); }

  std::optional<std::int64_t> find_size(const std::string& name) {
    const auto key = full(name);
    if (!header_.is_list(key)) return header_.whole_number(key);
    const auto of_layers = *header_.whole_numbers(key);
    if (!of_layers.empty() && std::ranges::count(of_layers, of_layers.front()) == std::ssize(of_layers)) {
      return of_layers.front();
    }
    header_.refuse(key, "expected one number for all layers");
  }

  std::int64_t size(const std::string& name) {
    if (const auto value = find_size(name)) return *value;
    refuse_absent(name);
  }

  std::optional<double> find_number(const std::string& name) { return header_.number(full(name)); }

  double number(const std::string& name) {
    if (const auto value = find_number(name)) return *value;
    refuse_absent(name);
  }

  std::optional<bool> find_flag(const std::string& name) { return header_.flag(full(name)); }
  std::optional<std::string_view> find_text(const std::string& name) { return header_.text(full(name)); }
  bool is_list(const std::string& name) { return header_.is_list(full(name)); }
  std::vector<std::int64_t> list(const std::string& name) { return *header_.whole_numbers(full(name)); }

  [[noreturn]] void refuse(const std::string& name, const std::string& expected) {
    header_.refuse(full(name), expected);
  }

  /// Keys that change nothing, or nothing beside the tensors.
  void pass_over(std::initializer_list<const char*> names) {
    for (const auto* name : names) full(name);
  }

  void refuse_unused() const {
    for (const auto& key : header_.keys()) {
      if (!key.starts_with(prefix_) || used_.contains(key)) continue;
      header_.refuse(key, "what this key changes is not known here; expected a file without it");
    }
  }

 private:
  std::string full(const std::string& name) {
    auto key = prefix_ + name;
    used_.insert(key);
    return key;
  }

  [[noreturn]] void refuse_absent(const std::string& name) {
    throw Error(header_.where() + ": has no " + full(name) + "; expected a number");
  }

  const GgufHeader& header_;
  std::string prefix_;
  std::set<std::string> used_;
};

/// A key that says how large what has turned is, which only files with divisors of their own have use for.
constexpr const char* kMagnitude = "rope.scaling.attn_factor";
void refuse_magnitude(Keys& keys);

const TensorView* find(Tensors tensors, std::string_view name);  ///< null if there is none
bool has(Tensors tensors, std::string_view name);
bool has_joined_inputs(Tensors tensors);  ///< queries, keys and values are one matrix
bool has_input_biases(Tensors tensors);   ///< they have biases

/// "rope_scaling" of config.json; null for none.
json scaling_of(Keys& keys);

/// What each pair's angle is divided by, a tensor of its own. Throws Error.
std::vector<float> divisors_of(const TensorView& tensor, std::int64_t pairs, const std::string& where);

std::int64_t head_width(Keys& keys);

/// Refuses values of another width than keys, and heads that are not turned as a whole.
void check_value_width(Keys& keys, std::int64_t width);
void check_head_width(Keys& keys, std::int64_t width);

/// The part of heads that turns. It is multiplied by their width again, and what that gives is cut to a whole number.
double turned_part(Keys& keys);

/// What most families have, under the names that Llama's config.json gave them; without the norms' epsilon.
json llama_sizes(const char* type, Keys& keys, Tensors tensors);

/// The same of families that turn heads as a whole, with RMSNorm.
json llama_like(const char* type, Keys& keys, Tensors tensors);

/// Refuses a number that is not what it must be, where the file has it.
void expect_size(Keys& keys, const char* name, std::int64_t value, const std::string& what);
void expect_one_key_a_head(Keys& keys);  ///< as many keys and values as queries have heads
void expect_four_widths(Keys& keys);     ///< of families whose MLP has one width

}  // namespace rometrace::gguf
