# Written by `lethe export aws`.

terraform {
  required_version = ">= 1.5"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.0"
    }
  }
}

provider "aws" {
  region = var.region
}

resource "aws_security_group" "balancer" {
  name_prefix = "${var.name}-lb-"
  vpc_id      = var.vpc_id

  ingress {
    from_port   = 80
    to_port     = 80
    protocol    = "tcp"
    cidr_blocks = ["0.0.0.0/0"]
  }

  egress {
    from_port   = 0
    to_port     = 0
    protocol    = "-1"
    cidr_blocks = ["0.0.0.0/0"]
  }

  lifecycle {
    create_before_destroy = true
  }
}

# Only the load balancer reaches the machines.
resource "aws_security_group" "machines" {
  name_prefix = "${var.name}-"
  vpc_id      = var.vpc_id

  ingress {
    from_port       = 8080
    to_port         = 8080
    protocol        = "tcp"
    security_groups = [aws_security_group.balancer.id]
  }

  egress {
    from_port   = 0
    to_port     = 0
    protocol    = "-1"
    cidr_blocks = ["0.0.0.0/0"]
  }

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_lb" "lethe" {
  name_prefix        = substr(var.name, 0, 6)
  load_balancer_type = "application"
  security_groups    = [aws_security_group.balancer.id]
  subnets            = var.subnet_ids
}

resource "aws_lb_target_group" "lethe" {
  name_prefix = substr(var.name, 0, 6)
  vpc_id      = var.vpc_id
  port        = 8080
  protocol    = "HTTP"
  # The longest `drain`: for so long requests may end after a machine was told to leave.
  deregistration_delay = 10
  slow_start           = 0

  health_check {
    path                = "/healthz"
    port                = "8080"
    interval            = 5
    timeout             = 3
    healthy_threshold   = 2
    unhealthy_threshold = 2
  }

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_lb_listener" "lethe" {
  load_balancer_arn = aws_lb.lethe.arn
  port              = 80
  protocol          = "HTTP"

  default_action {
    type             = "forward"
    target_group_arn = aws_lb_target_group.lethe.arn
  }
}

resource "aws_launch_template" "lethe" {
  name_prefix            = "${var.name}-"
  image_id               = var.ami_id
  instance_type          = var.instance_type
  vpc_security_group_ids = [aws_security_group.machines.id]
  user_data              = filebase64("${path.module}/user-data.sh")
  update_default_version = true

  dynamic "iam_instance_profile" {
    for_each = var.instance_profile == null ? [] : [var.instance_profile]

    content {
      name = iam_instance_profile.value
    }
  }

  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
  }
}

resource "aws_autoscaling_group" "lethe" {
  name_prefix               = "${var.name}-"
  vpc_zone_identifier       = var.subnet_ids
  target_group_arns         = [aws_lb_target_group.lethe.arn]
  min_size                  = var.machines_min
  max_size                  = var.machines_max
  health_check_type         = "ELB"
  health_check_grace_period = 120
  wait_for_capacity_timeout = "10m"

  launch_template {
    id = aws_launch_template.lethe.id
    # A number and not $Latest, or nothing would be rolled out, and nothing back.
    version = aws_launch_template.lethe.latest_version
  }

  instance_refresh {
    strategy = "Rolling"

    preferences {
      min_healthy_percentage = 90
      max_healthy_percentage = 125
      instance_warmup        = 0
      auto_rollback          = true
      skip_matching          = true
    }
  }

  tag {
    key                 = "Name"
    value               = var.name
    propagate_at_launch = true
  }

  lifecycle {
    create_before_destroy = true
    ignore_changes        = [desired_capacity]
  }
}

output "address" {
  description = "Where everything is reached."
  value       = aws_lb.lethe.dns_name
}
