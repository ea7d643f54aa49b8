#pragma once

#include <CLI/CLI.hpp>
#include <charconv>
#include <cstdint>
#include <functional>
#include <string>
#include <system_error>

#include "rometrace/error.hpp"
#include "rometrace/text/input_file.hpp"

namespace rometrace::cli {

/// A whole number in decimal digits, within [least, most]. CLI11's own reading takes "010" for eight.
template <typename Number>
std::function<void(const std::string&)> whole_number(const std::string& name, Number& number, std::int64_t least,
                                                     std::int64_t most) {
  return [=, &number](const std::string& text) {
    std::int64_t value = 0;
    const auto* end = text.data() + text.size();
    const auto [stop, error] = std::from_chars(text.data(), end, value);
    if (error != std::errc() || stop != end || value < least || value > most) {
      throw CLI::ValidationError(name, in_quotes(text) + "; expected a whole number from " + std::to_string(least) +
                                           " to " + std::to_string(most));
    }
    number = static_cast<Number>(value);
  };
}

/// The value that `read` gives; its errors begin with the option's name.
template <typename Read>
auto named(const std::string& name, Read read) {
  try {
    return read();
  } catch (const Error& error) {
    throw Error(name + ": " + error.what());
  }
}

}  // namespace rometrace::cli
