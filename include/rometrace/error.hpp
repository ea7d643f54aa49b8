#pragma once

#include <stdexcept>
#include <string>

namespace rometrace {

/// Input that cannot be used: a file, an option, a prompt. The one exception family of the library.
/// `what()` is one line without a final full stop: where, what was found, what was expected, what to do.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// The caller asked to stop (`std::stop_token`); nothing is wrong with the input.
class Interrupted : public Error {
 public:
  Interrupted() : Error("interrupted") {}
};

}  // namespace rometrace
