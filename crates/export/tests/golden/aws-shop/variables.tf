# Written by `lethe export aws`.

variable "region" {
  description = "Where everything is."
  type        = string
}

variable "name" {
  description = "What the names of everything begin with."
  type        = string
  default     = "shop"
}

variable "vpc_id" {
  description = "The network."
  type        = string
}

variable "subnet_ids" {
  description = "Subnets of the load balancer and the machines, in at least two zones."
  type        = list(string)
}

variable "ami_id" {
  description = "An image with systemd, lethe, and /srv/app."
  type        = string
}

variable "instance_type" {
  description = "The kind of machine."
  type        = string
  default     = "t3.medium"
}

variable "instance_profile" {
  description = "The IAM instance profile of the machines, if they need one."
  type        = string
  default     = null
}

variable "machines_min" {
  description = "The fewest machines."
  type        = number
  default     = 2
}

variable "machines_max" {
  description = "The most machines: as many times more as workers may become in lethe.toml."
  type        = number
  default     = 2
}
