#include "rometrace/trace/neurons.hpp"

#include <algorithm>
#include <charconv>

#include "rometrace/error.hpp"
#include "rometrace/text/input_file.hpp"

namespace rometrace {
namespace {

// A number at the start of `text`, which is then taken off it; none if there is none.
std::optional<std::int64_t> take_number(std::string_view& text) {
  std::int64_t number = -1;
  const auto [stop, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || number < 0) return std::nullopt;
  text.remove_prefix(static_cast<std::size_t>(stop - text.data()));
  return number;
}

}  // namespace

NeuronRule NeuronRule::parse(std::string_view text) {
  constexpr std::string_view kSteps = "integrated:";
  if (text == "gradient") return {Which::kGradient, 1};
  if (text == "none") return {Which::kNone, 1};
  if (text.starts_with(kSteps)) {
    auto rest = text.substr(kSteps.size());
    const auto steps = take_number(rest);
    if (steps && *steps >= 1 && rest.empty()) return {Which::kIntegrated, *steps};
  }
  throw Error(in_quotes(text) +
              " is no way to rank neurons; expected gradient, integrated:<steps> such as "
              "integrated:8, or none");
}

std::string to_string(const NeuronRule& rule) {
  switch (rule.which) {
    case NeuronRule::Which::kGradient:
      return "gradient";
    case NeuronRule::Which::kIntegrated:
      return "integrated:" + std::to_string(rule.steps);
    case NeuronRule::Which::kNone:
      break;
  }
  return "none";
}

std::vector<NeuronName> NeuronName::parse_list(std::string_view text) {
  std::vector<NeuronName> neurons;
  auto rest = text;
  while (true) {
    const auto layer = take_number(rest);
    const bool colon = layer && rest.starts_with(':');
    if (colon) rest.remove_prefix(1);
    const auto neuron = colon ? take_number(rest) : std::nullopt;
    if (!neuron || !(rest.empty() || rest.starts_with(','))) {
      throw Error(in_quotes(text) +
                  " names no neurons; expected layer:neuron, both counted from 0, one or several such as 3:117,5:9");
    }
    neurons.push_back({*layer, *neuron});
    if (rest.empty()) break;
    rest.remove_prefix(1);
  }
  std::sort(neurons.begin(), neurons.end());
  neurons.erase(std::unique(neurons.begin(), neurons.end()), neurons.end());
  return neurons;
}

std::string to_string(const std::vector<NeuronName>& neurons) {
  std::string text;
  for (const auto& [layer, neuron] : neurons) {
    text += (text.empty() ? "" : ",") + std::to_string(layer) + ":" + std::to_string(neuron);
  }
  return text;
}

std::string_view to_string(NeuronControl::Order order) {
  return order == NeuronControl::Order::kChange ? "change" : "random";
}

}  // namespace rometrace
